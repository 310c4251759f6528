"""What the clients stand on: a node in this process, or one elsewhere."""

from __future__ import annotations

from typing import TypeAlias

from capsule.client.remote.execution import RemoteExecution
from capsule.client.remote.node import RemoteNode
from capsule.client.remote.session import RemoteSession
from capsule.node.execution import Execution
from capsule.node.node import Node
from capsule.node.session import Session

AnyNode: TypeAlias = Node | RemoteNode
AnySession: TypeAlias = Session | RemoteSession
AnyExecution: TypeAlias = Execution | RemoteExecution
