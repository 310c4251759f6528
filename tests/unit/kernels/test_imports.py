"""What a zygote has in its memory is copied for each worker: page tables at the fork, pages at the first touch."""

from __future__ import annotations

import subprocess
import sys

UNWANTED = {"pydantic", "pydantic_core", "zmq", "capsule", "capsule_pool", "capsule_bridge", "jedi", "sqlite3"}


def test_a_worker_loads_nothing_of_the_node_nor_what_it_seldom_needs() -> None:
    code = (
        "import sys\n"
        "from capsule_kernels import worker, zygote\n"
        "worker.preload()\n"
        "worker.preloaded()\n"
        f"print({UNWANTED!r} & {{name.partition('.')[0] for name in sys.modules}})"
    )
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == "set()\n"


def test_a_zygote_that_only_makes_boxes_loads_nothing_of_what_workers_run() -> None:
    code = (
        "import sys\n"
        "from capsule_kernels import zygote\n"
        "zygote._prepared({'start_method': 'spawn', 'preload': ['json']})\n"
        "print({'IPython', 'traitlets', 'capsule_kernels.worker'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout == "set()\n"
