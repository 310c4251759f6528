"""The broker: what code in a session may do outside its process, asked for, decided, done and recorded in one place."""
