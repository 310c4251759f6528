"""What a kernel stands on: the node that it is part of, by way of its front, or without one."""

from __future__ import annotations

from typing import TypeAlias

from capsule.client.remote.execution import RemoteExecution
from capsule.node.execution import Execution
from capsule.node.front.inside import InsideNode, InsideSession
from capsule.node.node import Node
from capsule.node.session import Session

AnyNode: TypeAlias = Node | InsideNode
AnySession: TypeAlias = Session | InsideSession
AnyExecution: TypeAlias = Execution | RemoteExecution
