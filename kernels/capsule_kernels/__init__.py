"""What runs inside a zygote, a box and a worker: the process that runs code."""
