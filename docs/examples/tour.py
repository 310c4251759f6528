"""A tour of Capsule. Run it with: capsule run docs/examples/tour.py"""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

from IPython.display import Markdown, display

display(Markdown("# A tour of Capsule"))

# Output: all of it, by whatever path, in order, and before the verdict.
print("Hello from", Path(__file__).name, "in process", os.getpid())
print("Errors go to stderr.", file=sys.stderr)
subprocess.run(["echo", "A child process writes as well."], check=True)
thread = threading.Thread(target=print, args=("So does a thread.",))
thread.start()
thread.join()

# State: names live as long as the session.
squares = {number: number**2 for number in range(1, 6)}
print("Squares:", squares)

# Rich display: Markdown here, images and HTML in a notebook.
rows = "\n".join(f"| {number} | {'▇' * square} {square} |" for number, square in squares.items())
display(Markdown(f"| n | n² |\n|---|---|\n{rows}"))


async def delivery(name: str, delay: float) -> str:
    """Something worth waiting for."""
    await asyncio.sleep(delay)
    return f"{name} after {delay} s"


# Await: at the top level, with no event loop to set up.
for line in await asyncio.gather(delivery("tea", 0.2), delivery("cake", 0.1)):
    print("Delivered:", line)

print("That was the tour of", sys.argv[0])
