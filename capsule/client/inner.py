"""What the clients stand on: a node in this process, or one elsewhere."""

from __future__ import annotations

from typing import TypeAlias

from capsule.client.remote.checkpoints import RemoteCheckpoints
from capsule.client.remote.execution import RemoteExecution
from capsule.client.remote.node import RemoteNode
from capsule.client.remote.session import RemoteSession
from capsule.client.remote.streams import RemoteFiles
from capsule.node.checkpoints import SessionCheckpoints
from capsule.node.execution import Execution
from capsule.node.node import Node
from capsule.node.session import Session
from capsule.node.transfers import SessionFiles

AnyNode: TypeAlias = Node | RemoteNode
AnySession: TypeAlias = Session | RemoteSession
AnyExecution: TypeAlias = Execution | RemoteExecution
AnyFiles: TypeAlias = SessionFiles | RemoteFiles
AnyCheckpoints: TypeAlias = SessionCheckpoints | RemoteCheckpoints
