"""What a program uses to run code: the asynchronous client, and the synchronous one around it."""
