"""Providers that nobody has to trust: each in a process of its own, which the node only exchanges messages with.

Their modules are never imported by the node. An entry point of the group `capsule.providers.apart` names one.
"""
