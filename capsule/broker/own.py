"""What is the node's own: no root of a grant may have any of it inside, or code could give itself what it likes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from capsule.runtime import runtime_directory, state_directory, store_path
from capsule.settings import loading
from capsule_protocol.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from capsule.config import NodeConfig

CODE = "root_exposes_node"


class Own(NamedTuple):
    """A path and what it is. `whole`: nothing in it is for anybody else, so no root may be below it either."""

    what: str
    path: Path
    whole: bool = False


def own_of(config: NodeConfig) -> tuple[Own, ...]:
    """What belongs to a node with this configuration, whether it is there or not."""
    broker, serve = config.broker, config.serve
    found = [
        Own("the node's store", store_path(config)),
        Own("the node's runtime directory", serve.directory or runtime_directory(), whole=True),
        Own("the directory of the sessions' boxes", config.directory or Path(tempfile.gettempdir())),
        Own("the node's keys", state_directory() / "keys", whole=True),
        *(Own("the node's configuration", file) for file in sorted(loading.files)),
    ]
    if broker.policy is not None:
        found.append(Own("the policy", broker.policy))
    if broker.audit is not None:
        found.append(Own("the audit trail", broker.audit, whole=True))
    places = (place.partition(":") for place in broker.secrets.values())
    found += [Own("a secret", Path(path)) for kind, _, path in places if kind == "file"]
    return tuple(found)


def check_roots(scope: Any, own: Iterable[Own], grant: str) -> None:
    """Look at what a scope has as `roots`. Raises ArgumentError `root_exposes_node`.

    Directories are known by what they are, not by their names: links and mounts lead to the same ones.
    """
    own = tuple(own)
    roots = getattr(scope, "roots", None)
    for name, root in roots.items() if isinstance(roots, dict) else ():
        path = getattr(root, "path", None)
        exposed = _exposed(Path(path), own) if isinstance(path, str | Path) else None
        if exposed is None:
            continue
        where = f"grants.{grant}.scope.roots.{name}.path"
        text = f"{str(path)!r} has {exposed.what} inside or belongs to it: {exposed.path}"
        error = ArgumentError(where, text, allowed="a directory apart from all that is the node's own", code=CODE)
        error.details |= {"root": str(path), "path": str(exposed.path)}
        raise error


def _exposed(root: Path, own: Iterable[Own]) -> Own | None:
    """The first that is in a root, or that a root is in."""
    try:
        at = _identity(root)
    except OSError:  # the provider says so
        return None
    above = set(_identities(root))
    for one in own:
        if at in _identities(one.path):
            return one
        if one.whole and one.path.exists() and _identity(one.path) in above:
            return one
    return None


def _identities(path: Path) -> Iterator[tuple[int, int]]:
    """Of a path, of all directories above it, and if it is a link, of those above that too, for a link can be replaced.

    What is not there yet has none.
    """
    real, named = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    for one in {real, *real.parents, named, *named.parents}:
        if one.exists():
            yield _identity(one)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
