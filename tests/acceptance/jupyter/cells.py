"""What a kernel is asked, of all kinds, to be compared with ipykernel's answers; each entry works by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.acceptance.jupyter.recorder import Ask, run

if TYPE_CHECKING:
    from collections.abc import Mapping

CLICK = {"method": "custom", "content": {"event": "click"}}


def said(comm: str, data: Mapping[str, object], kind: str = "comm_msg", **more: str) -> Ask:
    """Something on a comm."""
    return Ask(kind, {"comm_id": comm, "data": data, **more})


def asked(kind: str, *codes: str, **more: object) -> list[Ask]:
    """The same question of several codes, at their ends."""
    return [Ask(f"{kind}_request", {"code": code, "cursor_pos": len(code), **more}) for code in codes]


OUTPUT: dict[str, list[Ask]] = {
    "a value": [run("1 + 1"), run("None"), run("1;"), run("# nothing"), run("_")],
    "nothing but blanks": [run(""), run(" \n"), run("1")],
    "prints between displays": [
        run("print(1); display('a'); print(2, end=''); display('b', metadata={'x': 1}); print(3)\n'v'")
    ],
    "updated displays": [
        run("h = display('a', display_id=True); h.update('b'); display('c', display_id='mine'); h"),
        run("from IPython.display import update_display; update_display('d', display_id='mine')"),
    ],
    "transient": [
        run("from IPython.display import publish_display_data as publish"),
        run("publish({'text/plain': 'x'}, transient={'display_id': 'q', 'more': [1, {'a': None}]})"),
        run("publish({'text/plain': 'x'}, transient={'other': 2})"),
        run("publish({'text/plain': 'x'}, {'m': 1}, transient={'display_id': 'q', 'z': 1}, update=True)"),
        run("publish({'text/plain': 'x'}, transient={'display_id': 5})"),
    ],
    "cleared output": [run("from IPython.display import clear_output\nprint(1); clear_output(wait=True); print(2)")],
    "all values": [
        run("%config InteractiveShell.ast_node_interactivity = 'all'"),
        run("1\nprint('x')\n2\n3"),
        run("4;\n5;"),
        run("for i in range(3): i"),
        run("6\nraise ValueError(1)"),
        run("%config InteractiveShell.ast_node_interactivity = 'last_expr'"),
    ],
    "the last statement's values": [
        run("%config InteractiveShell.ast_node_interactivity = 'last'"),
        run("for i in range(3): i"),
        run("%config InteractiveShell.ast_node_interactivity = 'last_expr_or_assign'"),
        run("y = 8"),
        run("%config InteractiveShell.ast_node_interactivity = 'last_expr'"),
    ],
    "values that code shows": [
        run("import sys\nsys.displayhook(3)\nprint('p')\n4"),
        run("sys.displayhook(5)"),
        run("_"),
    ],
    "rich values": [
        run(
            "class A:\n"
            "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
            "        return {'text/plain': 'p', 'a/x': {'k': [1, 2.5, None]}}, {'a/x': {'m': 1}}\nA()"
        ),
        run("display(A(), metadata={'z': 1})"),
        run("class B:\n    def _ipython_display_(self): print('itself')\nB()"),
        run(
            "class C:\n    def _repr_png_(self): return b'\\x89PNG'\n"
            "    def _repr_html_(self): return '<b>', {'w': 1}\nC()"
        ),
        run("from IPython.display import *; JSON({'a': 1}, expanded=True)"),
        run("display(HTML('a'), 'b', display_id='q')"),
        run("display({'image/png': b'abc', 'text/plain': 'x'}, raw=True)"),
        run("display({'text/plain': 5}, raw=True)"),
    ],
    "huge output": [run("for i in range(20000): print(i)"), run("'y' * 300000"), run("list(range(2000))")],
    "bytes that are no UTF-8": [run("!printf '\\xff\\xfe'")],
    "figures": [
        run("%matplotlib inline\nimport matplotlib.pyplot as plt"),
        run("print('a'); _ = plt.figure(figsize=(1, 1)); plt.plot([1, 2]); print('b'); 42"),
        run("plt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.figure(figsize=(1, 1)); plt.plot([2]); 1"),
        run("plt.figure(figsize=(1, 1)); plt.plot([1, 2]); plt.show(); print('after'); 5"),
        run("plt.figure(figsize=(1, 1)); plt.plot([1, 2]); 1 / 0"),
        run("fig, ax = plt.subplots(figsize=(1, 1)); fig"),
        run("fig = plt.figure(figsize=(1, 1)); plt.close(fig); fig"),
        run("plt.figure(figsize=(1, 1)); plt.plot([1, 2]); 5", silent=True),
    ],
    "tables": [run("import numpy, pandas; pandas.DataFrame({'a': [1, 2]})"), run("numpy.arange(5)")],
    "plotly": [run("import plotly.graph_objects as go; f = go.Figure(data=go.Bar(y=[1])); f"), run("f.show()")],
    "logging and warnings": [
        run("import logging; logging.warning('w'); logging.getLogger('x').error('e')"),
        run("import warnings; warnings.warn('w!')"),
        run("warnings.warn('d', DeprecationWarning)"),
    ],
    "callbacks of cells": [
        run("def post(*a): print('post', len(a))\ndef pre(*a): print('pre')\nevents = get_ipython().events"),
        run("events.register('post_execute', post); events.register('pre_run_cell', pre)"),
        run("7"),
        run("1 / 0"),
        run("8", silent=True),
        run("events.unregister('post_execute', post); events.unregister('pre_run_cell', pre)"),
    ],
    "captured output": [
        run("%%capture c\nprint(1); display(2); 3"),
        run("c.stdout, c.outputs"),
        run("c.show()"),
        run("%%capture --no-stdout\nprint('seen')"),
    ],
}
RUNNING: dict[str, list[Ask]] = {
    "threads": [
        run("import threading\nt = threading.Thread(target=lambda: print('in thread')); t.start(); t.join()"),
        run("import concurrent.futures as c\nwith c.ThreadPoolExecutor(1) as p: p.submit(print, 'x').result()"),
    ],
    "tasks": [
        run("import asyncio\nawait asyncio.sleep(0)\n5"),
        run("async def f():\n    await asyncio.sleep(0); print('task'); return 3\nt = asyncio.create_task(f())"),
        run("await t"),
        run("async def gen():\n    yield 1\n    yield 2\n[x async for x in gen()]"),
        run("async for x in gen(): print(x)"),
        run("async with asyncio.Lock(): print('locked')"),
        run("await asyncio.gather(f(), f())"),
        run("raise asyncio.CancelledError('c')"),
        run("async def bad(): 1 / 0\nawait bad()"),
    ],
    "programs": [  # what they write to ipykernel's own descriptors may come late, so there is nothing of that
        run("x = !echo a; echo b\nx"),
        run("!exit 3"),
        run("_exit_code"),
        run("!!echo q"),
        run("%sx echo z"),
        run("%%bash\necho out"),
        run("%%bash\nexit 3"),
        run("%%bash --out o --err e\necho a; echo b >&2"),
        run("o, e"),
    ],
    "input": [
        run("input('name: ')", "Ada"),
        run("import getpass; getpass.getpass('word: ')", "secret"),
        run("print('before'); x = input(); print(x)", "v"),
        run("input(5)", "x"),
        run("%%time\ninput('q')", "y"),
    ],
    "the debugger of tracebacks": [
        run("def f():\n    x = 1\n    1 / 0\nf()"),
        run("%debug", "p x", "up", "q"),
        run("%pdb on"),
        run("%pdb off"),
    ],
    "silent and uncounted code": [
        run("print('s')", silent=True),
        run("1 / 0", silent=True),
        run("display(1)", silent=True),
        run("1 / 0", store_history=False),
        run("print(6)", store_history=False),
        run("7"),
    ],
    "user expressions": [
        run(
            "x = 2",
            user_expressions={"a": "x + 1", "b": "1 / 0", "c": "'s'", "d": "print('p')", "e": "no code", "f": "[][1]"},
        ),
        run("1 / 0", user_expressions={"a": "1"}),
    ],
    "payloads": [
        run("open('script.py', 'w').write('val = 3\\n')"),
        run("%load script.py"),
        run("get_ipython().set_next_input('abc', replace=True)\nget_ipython().set_next_input('def')"),
        run("from IPython.core import page; page.page('text'); page.page('more')"),
        run("page.page({'text/plain': 'a', 'text/html': '<b>a</b>'}, start=3)"),
        run("%page 5"),
        run("%recall 1"),
        run("get_ipython().payload_manager.write_payload({'source': 'mine', 'a': 1})"),
    ],
}
MAGICS: dict[str, list[Ask]] = {
    "run": [
        run("_ = open('script.py', 'w').write('import sys\\nprint(sys.argv, __name__)\\nval = 3\\n')"),
        run("%run script.py a b"),
        run("val"),
        run("%run -i script.py"),
        run("%run none.py"),
        run("_ = open('bad.py', 'w').write('def f():\\n    1 / 0\\nf()\\n')"),
        run("%run bad.py"),
        run("_ = open('ends.py', 'w').write('import sys\\nsys.exit(3)\\n')"),
        run("%run ends.py"),
    ],
    "cell magics": [
        run("%%html\n<b>x</b>"),
        run("%%javascript\nalert(1)"),
        run("%%latex\n$x$"),
        run("%%markdown\n# h"),
        run("%%svg\n<svg></svg>"),
        run("%%writefile w.txt\nhello"),
        run("%%writefile -a w.txt\nmore"),
        run("%pycat w.txt"),
        run("%less w.txt"),
    ],
    "times": [
        run("%time 1 + 1"),
        run("%time x = 3"),
        run("%%time\n5"),
        run("%timeit -n1 -r1 -o -q 1"),
        run("%time 1 / 0"),
    ],
    "names": [
        run("%reset -f"),
        run("a = 1; b = 'x'"),
        run("%who"),
        run("%whos"),
        run("%who_ls"),
        run("%reset -f"),
        run("%who"),
        run("%psearch int*"),
    ],
    "extensions": [
        run("%load_ext autoreload"),
        run("%autoreload 2"),
        run(
            "_ = open('changing.py', 'w').write('v = 1\\n')\n"
            "import sys; sys.path.insert(0, '')\nimport changing; changing.v"
        ),
        run(
            "import os, time; _ = open('changing.py', 'w').write('v = 22\\n')\n"
            "os.utime('changing.py', (time.time() + 5,) * 2)"
        ),
        run("changing.v"),
        run("%autoreload 0"),
        run("%load_ext nothing"),
    ],
    "help": [
        run("len?"),
        run("len??"),
        run("nothing?"),
        run("import json; json.dumps?"),
        run("*oba*?"),
        run("%pinfo len"),
        run("%pdoc len"),
    ],
    "places and variables": [
        run("%cd /"),
        run("%pwd"),
        run("%cd -"),
        run("%env X_Y=3"),
        run("%env X_Y"),
        run("%macro m 1"),
    ],
    "what programs are told": [
        run("import os; [os.environ[name] for name in ('TERM', 'CLICOLOR', 'FORCE_COLOR', 'PAGER', 'MPLBACKEND')]")
    ],
    "a magic that fails": [run("%run")],
}
ERRORS: dict[str, list[Ask]] = {
    "errors": [
        run("1/0"),
        run("def f():\n    try:\n        1/0\n    except Exception as e:\n        raise ValueError('x') from e\nf()"),
        run("try:\n    1/0\nexcept ZeroDivisionError:\n    {}['k']"),
        run("undefined"),
        run("import os; os.pathh"),
        run("e = ValueError('v'); e.add_note('a note'); raise e"),
        run("class B(BaseException): pass\nraise B('x')"),
        run("raise KeyboardInterrupt"),
        run("assert 1 == 2, 'no'"),
        run("class E(Exception):\n    def _render_traceback_(self): return ['one', 'two']\nraise E('q')"),
    ],
    "syntax errors": [run("x = ("), run("print(1)\na b"), run("def f():\nreturn 1"), run("if 1:\nx"), run("a = '\0'")],
    "exits": [
        run("import warnings; warnings.simplefilter('ignore')\nraise SystemExit(3)"),
        run("import sys; sys.exit()"),
    ],
    "tracebacks in other ways": [
        run("1/0"),
        run("%tb"),
        run("%xmode Plain"),
        run("1/0"),
        run("%xmode Minimal"),
        run("1/0"),
        run("%xmode Context"),
    ],
    "errors that code shows": [
        run("try:\n    1/0\nexcept Exception:\n    get_ipython().showtraceback()\nprint('after')"),
        run("get_ipython().ex('1/0')"),
        run(
            "import traceback\ntry:\n    {}['k']\nexcept Exception as e:\n    print(traceback.format_exception_only(e))"
        ),
    ],
    "values that cannot be displayed": [
        run("class R:\n    def __repr__(self): raise ValueError('bad')\ndisplay(R())\n2"),
    ],
}
QUESTIONS: dict[str, list[Ask]] = {
    "completions without jedi": [
        run("%config Completer.use_jedi = False"),
        *asked("complete", "nothing.a", "\\alp", "\\alpha", "%load_ext autorel"),
    ],
    "whether code is complete": asked(
        "is_complete",
        "1",
        "for i in x:",
        "for i in x:\n  pass",
        "x = (",
        "a b",
        "",
        "'''",
        "%%bash\nls",
        "!ls",
        "x = \\",
        "len?",
    ),
    "help of names": [
        run("import json; x = 1"),
        *(
            ask
            for level in (0, 1)
            for ask in asked("inspect", "len", "json.dumps", "nothing", "", "x", "%time", detail_level=level)
        ),
    ],
    "history": [
        run("'h1'"),
        Ask("history_request", {"hist_access_type": "tail", "n": 1, "output": False, "raw": True}),
        Ask("history_request", {"hist_access_type": "tail", "n": 0, "output": False, "raw": True}),
        Ask("history_request", {"hist_access_type": "search", "n": 0, "pattern": "*", "output": False, "raw": True}),
        Ask(
            "history_request", {"hist_access_type": "search", "n": 1, "pattern": "*'h1'*", "output": False, "raw": True}
        ),
    ],
    "comms that there are": [Ask("comm_info_request", {"target_name": "nothing"})],
}
RUNS = run(
    "import sys\ndef runs(message): get_ipython().run_cell(message['content']['data']['code'])\n"
    "def opened(comm, msg): comm.on_msg(runs)\n"
    "get_ipython().kernel.comm_manager.register_target('runs', opened)"
)
"""What the front end says on a comm for `runs` is code."""
COMMS: dict[str, list[Ask]] = {
    "comms of the code": [
        run("import comm\nc = comm.create_comm(target_name='t', data={'a': 1}, metadata={'m': 2}, buffers=[b'bb'])"),
        run("c.send({'x': 1}); c.send({'y': 2}, metadata={'z': 3}, buffers=[b'q', memoryview(b'w')])"),
        run("c.close({'bye': 1})"),
    ],
    "comms of the front end": [
        run(
            "def opened(comm, msg):\n    comm.on_msg(lambda m: comm.send({'echo': m['content']['data']}))\n"
            "    comm.on_close(lambda m: print('closed'))\n    comm.send({'hello': msg['content']['data']})\n"
            "get_ipython().kernel.comm_manager.register_target('mine', opened)"
        ),
        said("front", {"d": 1}, "comm_open", target_name="mine"),
        said("front", {"e": 2}),
        said("front", {}, "comm_close"),
    ],
    "values in what the front end says on a comm": [
        RUNS,
        said("runs", {}, "comm_open", target_name="runs"),
        run("1 + 1"),
        said("runs", {"code": "40 + 2"}),
        said("runs", {"code": "sys.displayhook(3); 4"}),
        run("5"),
    ],
    "payloads of what the front end says on a comm": [
        RUNS,
        said("runs", {}, "comm_open", target_name="runs"),
        said("runs", {"code": "get_ipython().set_next_input('abc')"}),
        said("runs", {"code": "from IPython.core import page; page.page('text')"}),
        said("runs", {"code": "page.page('more')"}),
        run("6"),
        run("7"),
    ],
    "a value, and what user expressions print": [run("8", user_expressions={"a": "print('p')"})],
    "widgets": [
        run("import ipywidgets as w\ns = w.IntSlider(value=3); s"),
        run("s.value = 5"),
        run("out = w.Output()\nout"),
        run("with out: print('in out'); display(4)"),
        run("with out: 1/0"),
        run("w.interact(lambda x: print(x), x=3);"),
        run("s.close()"),
    ],
    "callbacks of widgets": [
        run(
            "import ipywidgets as w\nb = w.Button(model_id='fails'); b.on_click(lambda _: 1/0)\n"
            "c = w.Button(model_id='shows'); c.on_click(lambda _: display(5))\n"
            "s = w.IntSlider(model_id='slides'); s.observe(lambda c: 1/0, 'value')"
        ),
        said("fails", CLICK),
        said("shows", CLICK),
        said("slides", {"method": "update", "state": {"value": 7}, "buffer_paths": []}),
        said("slides", {"method": "update", "state": {"value": "x"}, "buffer_paths": []}),
        said("slides", {"method": "request_state"}),
        said("slides", {}),
    ],
    "figures of a callback": [
        run("%matplotlib inline\nimport matplotlib.pyplot as plt, ipywidgets as w\nb = w.Button(model_id='draws')"),
        run("b.on_click(lambda _: (plt.figure(figsize=(1, 1)), plt.plot([1])) and None)"),
        said("draws", CLICK),
    ],
}
ALIKE = OUTPUT | RUNNING | MAGICS | ERRORS | QUESTIONS | COMMS

DIFFERENT: dict[str, tuple[list[Ask], str]] = {
    "stderr between prints": (
        [run("import sys; print(1); print('e', file=sys.stderr); print(2)")],
        "both streams keep their order; ipykernel tells of each stream's text as a whole",
    ),
    "a group of exceptions": (
        [run("raise ExceptionGroup('g', [ValueError(1)])")],
        "is an error with its members; ipykernel has no error message, and text on stderr with frames of its own",
    ),
    "a deep recursion": (
        [run("def r(n): r(n - 1) if n else 1/0\nr(20)")],
        "repeated frames stand for themselves once; ipykernel shows them all",
    ),
    "a broken __repr__": (
        [run("class R:\n    def __repr__(self): raise ValueError('bad')\nR()")],
        "the reply names the error; ipykernel's says NoneType",
    ),
    "a broken __str__": (
        [run("class E(Exception):\n    def __str__(self): raise ValueError\nraise E")],
        "is one error, of the exception that was raised; ipykernel shows its own failure to show it, too",
    ),
    "a magic that is not there": (
        [run("%nothing")],
        "the reply has the text as its traceback, which nbclient shows; ipykernel's is empty",
    ),
    "an error shown by rich": (
        [run("import rich.traceback; _ = rich.traceback.install()"), run("1/0")],
        "the reply has the last line as its traceback; ipykernel's is empty",
    ),
    "programs behind !": (
        [run("!echo out; echo err >&2")],
        "write to the cell's own streams, each line with its end; ipykernel gives them a terminal, where all is stdout",
    ),
    "a thread that goes on": (
        [
            run(
                "import threading; go = threading.Event()\n"
                "t = threading.Thread(target=lambda: (go.wait(), print('late')))"
            ),
            run("t.start()"),
            run("go.set(); t.join()"),
        ],
        "writes under the request that started it; ipykernel's output goes to what runs now",
    ),
    "a thread that fails": (
        [run("import threading; t = threading.Thread(target=lambda: 1/0, name='T'); t.start(); t.join()")],
        "shows the source of its cell",
    ),
    "asyncio.run": ([run("import asyncio; asyncio.run(asyncio.sleep(0))")], "works in a cell that does not await"),
    "a module beside the notebook that has the name of one of Python's": (
        [
            run("import sys\nif sys.path.count('') > 1: sys.path.remove('')"),  # a cell of before has put it there
            run("_ = open('tabnanny.py', 'w').write('mine = 1')"),
            # What was listed at the same tick of the clock as the file was written is taken for new.
            run("import importlib; importlib.invalidate_caches(); import tabnanny; hasattr(tabnanny, 'mine')"),
            run("import os; os.remove('tabnanny.py')"),
        ],
        "is found first, as by a script; with ipykernel Python's is",
    ),
    "surrogates": ([run("print('\\ud800')")], "are written as \\ud800; ipykernel loses what was printed with them"),
    "sys.stdin": ([run("import sys; sys.stdin.readline()", "line")], "asks the front end; ipykernel's is at its end"),
    "getpass without a front end": (
        [run("import getpass; getpass.getpass()", allow_stdin=False)],
        "the traceback has no frame of the kernel, and the text is that of input()",
    ),
    "breakpoint()": ([run("breakpoint()", "c")], "stops in Python's own debugger; ipykernel does not stop"),
    "a callback of cells that fails": (
        [
            run("def bad(*a): raise ValueError('cb')\nget_ipython().events.register('pre_run_cell', bad)"),
            run("9"),
            run("get_ipython().events.unregister('pre_run_cell', bad)"),
        ],
        "is named on stderr, without what it was called with",
    ),
    "a value of uncounted code": (
        [run("6", store_history=False)],
        "has the number of its execute_input; ipykernel's is that of the cell before",
    ),
    "integers of more than 64 bits in a display": ([run("display({'application/json': 2**70}, raw=True)")], "are text"),
    "what JSON does not know": (
        [run("display('x', metadata={'a': object()})")],
        "is shown by its text; with ipykernel the cell fails",
    ),
    "outputs of the history": (
        [run("'h2'"), Ask("history_request", {"hist_access_type": "tail", "n": 1, "output": True, "raw": True})],
        "are there; ipykernel's are null",
    ),
    "completions": (
        asked("complete", "for x in ran", "zz = 'a'\nzz.upp"),  # the first without jedi there, the second with it
        "are IPython's own, without jedi, with types and signatures of what is there",
    ),
    "a comm that nobody knows": ([said("nobody", {})], "changes nothing; ipykernel logs it on stderr"),
    "a comm whose handler fails": (
        [
            run(
                "def opened(comm, msg): comm.on_msg(lambda m: 1/0)\n"
                "get_ipython().kernel.comm_manager.register_target('bad', opened)"
            ),
            said("bad1", {}, "comm_open", target_name="bad"),
            said("bad1", {}),
        ],
        "has IPython's traceback on stderr; ipykernel's is Python's",
    ),
    "kernel_info": ([Ask("kernel_info_request", {})], "tells of Capsule"),
    "usage": ([Ask("usage_request", {}, "control")], "has the load of the machine, and less of its memory"),
}
"""By name: what is asked, and what is other than ipykernel's on purpose."""
