"""The Capsule protocol: messages, codec, framing, state machines, errors, limits. No I/O and no clock.

`protocol/README.md` specifies it. Import the modules: a worker needs few of them, and none that loads pydantic.
"""
