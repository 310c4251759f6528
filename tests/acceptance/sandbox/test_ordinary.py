"""Ten ordinary uses that work in a sandbox as they do without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.sandbox.rig import Host

MIB = 2**20


def test_numpy_with_threads(host: Host) -> None:
    code = """
import ctypes, glob, os, threading, numpy
from concurrent.futures import ThreadPoolExecutor
for path in glob.glob(os.path.join(os.path.dirname(numpy.__file__), "..", "numpy.libs", "*openblas*")):
    ctypes.CDLL(path).scipy_openblas_set_num_threads64_(2)  # the zygote has told it to use one
ones = numpy.ones((600, 600))
with ThreadPoolExecutor(2) as pool:
    print(sum(part.sum() for part in pool.map(lambda _: ones @ ones, range(2))))
"""
    assert float(host.printed(code)) == 2 * 600**3


def test_pandas(host: Host) -> None:
    code = """
import pandas
frame = pandas.DataFrame({"a": [1, 2, 2], "b": [1.0, 2.0, 3.0]})
frame.to_csv("frame.csv", index=False)
print(pandas.read_csv("frame.csv").groupby("a").b.sum().to_dict())
"""
    assert host.printed(code) == "{1: 1.0, 2: 5.0}"


def test_matplotlib(host: Host) -> None:
    code = """
import os, matplotlib
matplotlib.use("agg")
from matplotlib import pyplot
pyplot.plot([1, 2, 3]); pyplot.title("three")
pyplot.savefig("plot.png")
print(open("plot.png", "rb").read(8))
"""
    assert host.printed(code) == repr(b"\x89PNG\r\n\x1a\n")


def test_tempfile(host: Host) -> None:
    code = """
import os, tempfile
with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
    file.write(b"x" * 1000); file.flush()
    print(os.path.getsize(file.name), os.listdir(folder) == [os.path.basename(file.name)])
print(os.path.exists(folder))
"""
    assert host.printed(code) == "1000 True\nFalse"


def test_subprocess_of_python_itself(host: Host) -> None:
    code = """
import subprocess, sys
print(subprocess.run([sys.executable, "-c", "import json, ssl, sqlite3; print(json.dumps([1]))"],
                     capture_output=True, text=True, check=True).stdout)
"""
    assert host.printed(code) == "[1]"


def test_multiprocessing_by_fork(host: Host) -> None:
    code = """
import multiprocessing
fork = multiprocessing.get_context("fork")
def square(n):
    return n * n
with fork.Pool(2) as pool:
    print(pool.map(square, range(5)))
"""
    more = """
queue, number = fork.Queue(), fork.Value("i", 0)
def add():
    with number.get_lock():
        number.value += 1
        queue.put(number.value)
many = [fork.Process(target=add) for _ in range(3)]
for one in many: one.start()
print(sorted(queue.get() for _ in many))
for one in many: one.join()
"""
    assert host.printed(code) == "[0, 1, 4, 9, 16]"
    assert host.printed(code, more) == "[1, 2, 3]"


def test_asyncio(host: Host) -> None:
    code = """
import asyncio, sys
async def main():
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(7)", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    number = await asyncio.to_thread(lambda: 8)
    return out.decode().strip(), number, await asyncio.wait_for(asyncio.sleep(0.01, 9), 5)
print(asyncio.run(main()))
"""
    assert host.printed(code) == "('7', 8, 9)"
    assert host.printed("import asyncio\nprint(await asyncio.sleep(0, 3))") == "3"


def test_sqlite_in_the_scratch(host: Host) -> None:
    code = """
import sqlite3
for mode in ("delete", "wal"):
    with sqlite3.connect(f"{mode}.db") as db:
        print(db.execute(f"pragma journal_mode={mode}").fetchone()[0])
        db.execute("create table t (n integer)")
        db.executemany("insert into t values (?)", [(n,) for n in range(1000)])
    db.close()
    print(sqlite3.connect(f"{mode}.db").execute("select sum(n) from t").fetchone()[0])
"""
    assert host.printed(code) == "delete\n499500\nwal\n499500"


def test_threads(host: Host) -> None:
    code = """
import threading
found, gate = [], threading.Barrier(50)
def work(n):
    gate.wait()
    found.append(n)
many = [threading.Thread(target=work, args=(n,)) for n in range(50)]
for one in many: one.start()
for one in many: one.join()
print(sum(found))
"""
    assert host.printed(code) == "1225"


def test_large_allocations_within_the_limit(host: Host) -> None:
    code = """
import numpy
block = numpy.ones(300 * 2**20, dtype="u1")
text = "x" * (100 * 2**20)
print(int(block.sum()) // 2**20, len(text) // 2**20)
"""
    assert host.printed(code, memory_bytes=600 * MIB) == "300 100"
