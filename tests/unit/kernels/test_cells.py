"""Cells: how they are cut, what is shown, what becomes of errors, and what is kept."""

from __future__ import annotations

import os

import pytest

from capsule_kernels.pieces import ends_silently
from tests.unit.kernels.alone import alone
from tests.unit.kernels.rig import Session

SHOWN = [
    ("", None),
    ("   \n", None),
    ("# only a comment", None),
    ("1 + 1", "2"),
    ("x = 1\nx", "1"),
    ("x = 1", None),
    ("None", None),
    ("1\n2", "2"),
    ("1; 2", "2"),
    ("2;", None),
    ("2 ;  # hidden", None),
    ("2  # shown;", "2"),
    ("'a;'", "'a;'"),
    ("for i in range(3): i", None),
    ("(\n1,\n2,\n)", "(1, 2)"),
    ("def f(): return 5\nf()", "5"),
    ("'é' * 2", "'éé'"),
    ("[n async for n in agen()]", "[0, 1]"),
    ("await anow()", "7"),
    ("x = await anow()\nx + 1", "8"),
    ("await anow();", None),
    ("lambda: 0;", None),
]


@alone
def test_the_last_expression_is_shown() -> None:
    session = Session()
    session.value("async def anow(): return 7\nasync def agen():\n    yield 0\n    yield 1")
    for code, shown in SHOWN:
        assert session.value(code) == shown, code


@pytest.mark.parametrize(
    ("mode", "code", "shown", "displays"),
    [
        ("last_expr", "1\n2", "2", []),
        ("none", "1\n2", None, []),
        ("all", "1\nx = 3\n2", "2", ["1"]),
        ("last", "1\n2", "2", []),
        ("last", "1\nfor i in range(2): i", "1", ["0"]),
        ("last", "for i in range(2): i\nx = 1", None, []),
        ("all", "for i in range(2): i\nif i: 5\n6", "6", ["0", "1", "5"]),
        ("all", "if True:\n    await anow()", "7", []),
        ("last_expr", "1\nfor i in range(2): i", None, []),
        ("last_expr_or_assign", "x = 5", "5", []),
        ("last_expr_or_assign", "x: int = 5", "5", []),
        ("last_expr_or_assign", "x = 1\nx += 5", "6", []),
        ("last_expr_or_assign", "x, y = 1, 2", None, []),
        ("last_expr_or_assign", "x = await anow()", "7", []),
        ("all", "1\nawait anow()", "7", ["1"]),
    ],
)
@alone
def test_each_mode_of_interactivity(mode: str, code: str, shown: str | None, displays: list[str]) -> None:
    session = Session()
    session.value("async def anow(): return 7")
    session.python.ast_node_interactivity = mode
    assert session.value(code) == shown
    assert [session.message(session.shell).body["data"]["text/plain"] for _ in displays] == displays
    assert not session.shell.poll(0)


@alone
def test_an_expression_is_evaluated_once() -> None:
    session = Session()
    for code in ("hits = []", "hits.append(1)\nhits.append(2)", "async def f(): hits.append(3)", "0\nawait f()"):
        session.run(code)
    assert session.value("hits") == "[1, 2, 3]"


@alone
def test_future_features_hold_for_the_cells_that_follow() -> None:
    session = Session()
    session.value("from __future__ import annotations\ndef f(x: undefined): ...")
    assert session.value("def g(x: undefined): ...\ng.__annotations__") == "{'x': 'undefined'}"


@alone
def test_our_own_future_features_are_not_the_cells() -> None:
    session = Session()
    assert session.error("def f(x: undefined): ...")["name"] == "NameError"


@alone
def test_magics_and_shell_lines() -> None:
    session = Session()
    assert session.value("%%capture out\nprint('hidden')") is None
    assert session.value("out.stdout") == "'hidden\\n'"
    session.raw(0)
    session.value("!printf shell")
    assert session.text(0) == b"shell"
    assert session.value("names = !printf 'a\\nb'\nnames") == "['a', 'b']"
    assert session.value("x = %pwd\ntype(x).__name__") == "'str'"
    assert (
        "no-such" in session.error("%no-such-magic")["message"] or session.error("%nosuchmagic")["name"] == "UsageError"
    )


COMMANDS = [
    ("pwd", "'/'"),
    ("cd /tmp", None),
    ("pwd\n", "'/tmp'"),
    ("cd = 7", None),
    ("cd", "7"),
    ("del cd", None),
    ("%alias say echo said %s", None),
    ("say so", None),
    ("%macro again 2", None),
    ("again", "'/tmp'"),
    ("%autocall 2", None),
    ("len [1]", "1"),
    ("%autocall 0", None),
    ("automagic", None),
]


@alone
def test_commands_without_a_sign_are_run_as_in_ipython() -> None:
    """Magics, aliases, macros and calls without brackets: in cells of one line, and unless a name hides them."""
    session = Session()
    os.chdir("/")
    session.value("8")
    for code, shown in COMMANDS:
        assert session.value(code) == shown, code
    assert b"said so" in session.text(0)
    for code in ("pwd", "x = 3\nls"):
        assert session.error(code)["name"] == "NameError"
    assert session.value("In[3]") == repr("get_ipython().run_line_magic('cd', '/tmp')")


@alone
def test_what_the_session_adds_for_lines_without_a_sign_is_used() -> None:
    session = Session()
    session.value(
        "from IPython.core.prefilter import PrefilterTransformer\n"
        "class Shout(PrefilterTransformer):\n"
        "    def transform(self, line, _continued): return line.replace('SHOUT', 'str.upper')\n"
        "shell = get_ipython()\n"
        "added = Shout(shell=shell, prefilter_manager=shell.prefilter_manager)"
    )
    assert session.value("SHOUT('x')") == "'X'"


@alone
def test_transformers_that_the_session_adds_are_used() -> None:
    session = Session()
    session.value(
        "def shout(lines): return [line.replace('SHOUT', 'str.upper') for line in lines]\n"
        "get_ipython().input_transformers_post.append(shout)"
    )
    assert session.value("SHOUT('x')") == "'X'"


@alone
def test_a_transformer_that_fails_fails_the_cell() -> None:
    session = Session()
    session.value("def broken(lines): raise LookupError('mine')\nget_ipython().input_transformers_post.append(broken)")
    assert session.error("1")["name"] == "LookupError"


@alone
def test_tree_transformers_are_used() -> None:
    session = Session()
    session.value(
        "import ast\n"
        "class Double(ast.NodeTransformer):\n"
        "    def visit_Constant(self, node):\n"
        "        return ast.copy_location(ast.Constant(node.value * 2), node)\n"
        "get_ipython().ast_transformers.append(Double())"
    )
    assert session.value("4") == "8"


NO_PYTHON = [
    "1 +",
    "(",
    "x = = 1",
    "def f(:\n  pass",
    "  return 1",
    "return 1",
    "'unfinished",
    "if True:\npass",
    "%%no_cell_magic_body_is_python\nx = (",
    "yield 1",
    "def f():\n    x = await g()",
    "break",
    "nonlocal x",
    "x\x00y",
    "f'{'",
    "é²",
]


@alone
def test_what_is_no_python_is_an_error_and_runs_nothing() -> None:
    session = Session()
    for code in NO_PYTHON:
        body = session.error("ran = 1\n" + code if not code.startswith("%%") else code)
        assert body["name"] in ("SyntaxError", "IndentationError", "ValueError", "UsageError"), (code, body["name"])
        assert body["verdict"] == "error"
        assert not any("capsule_kernels" in line or "compilerop" in line for line in body["traceback"]), code
        assert session.value("'ran' in globals()") == "False", code


@alone
def test_a_syntax_error_shows_its_line() -> None:
    body = Session().error("x = 1\ny = = 2")
    text = "\n".join(body["traceback"])
    assert "y = = 2" in text
    assert "invalid syntax" in text
    assert "line 2" in text


@pytest.mark.parametrize("code", ["import wrong", "exec(source)", "await anow()\nimport wrong"])
@alone
def test_a_syntax_error_elsewhere_shows_its_line_and_who_led_there(code: str) -> None:
    session = Session()
    session.value("async def anow(): return 7\nimport pathlib, sys, tempfile\nsource = 'x = 1\\ny = = 2\\n'")
    session.value("with tempfile.TemporaryDirectory() as folder: pass\nsys.path.insert(0, folder)")
    session.value("path = pathlib.Path(folder, 'wrong.py')\npath.parent.mkdir()\n_ = path.write_text(source)")
    text = "\n".join(session.error(code)["traceback"])
    session.value("import shutil\nshutil.rmtree(folder)")
    for part in ("Cell In[4], line", code.splitlines()[-1], "    y = = 2\n        ^\n", ":2", "invalid syntax"):
        assert part in text, text
    assert ("wrong.py" in text) is ("import" in code)
    assert "capsule_kernels" not in text


@pytest.mark.parametrize("prefix", ["", "await anow()\n"])
@alone
def test_a_traceback_shows_the_users_source_and_no_frame_of_ours(prefix: str) -> None:
    session = Session()
    session.value("async def anow(): return 7\ndef inner():\n    return 1 / 0  # here")
    body = session.error(f"{prefix}inner()")
    text = "\n".join(body["traceback"])
    assert (body["name"], body["message"], body["code"]) == ("ZeroDivisionError", "division by zero", "execution_error")
    assert "return 1 / 0  # here" in text
    assert "Cell In[1], line 3" in text
    assert "Cell In[2], line" in text
    for foreign in ("capsule_kernels", "asyncio", "\x1b"):
        assert foreign not in text


@alone
def test_the_frames_of_the_chain_and_notes_are_shown() -> None:
    body = Session().error(
        "def work():\n"
        "    try:\n"
        "        {}['missing']\n"
        "    except KeyError as error:\n"
        "        error = ValueError('outer')\n"
        "        error.add_note('a note')\n"
        "        raise error\n"
        "work()"
    )
    text = "\n".join(body["traceback"])
    for part in ("KeyError: 'missing'", "During handling", "ValueError: outer", "a note"):
        assert part in text
    assert "capsule_kernels" not in text


@pytest.mark.parametrize("prefix", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
@alone
def test_a_group_shows_its_members(prefix: str) -> None:
    body = Session().error(f"{prefix}raise ExceptionGroup('many', [ValueError('first'), KeyError('second')])")
    text = "\n".join(body["traceback"])
    assert body["name"] == "ExceptionGroup"
    assert "ValueError: first" in text
    assert "KeyError: 'second'" in text
    assert "capsule_kernels" not in text


@alone
def test_an_exception_that_cannot_be_shown_still_gives_a_verdict() -> None:
    session = Session()
    for method in ("__str__", "__repr__", "__getattribute__", "_render_traceback_"):
        for raised in ("ValueError('inner')", "SystemExit(3)", "KeyboardInterrupt()", "self"):
            session.value(f"class Broken(Exception):\n    def {method}(self, *args): raise {raised}")
            body = session.error("raise Broken(1)")
            assert (body["verdict"], body["name"], body["code"]) == ("error", "Broken", "execution_error")
            assert body["traceback"]
            assert session.value("1") == "1"


EXITS = [
    ("raise SystemExit", 0),
    ("import sys; sys.exit(3)", 3),
    ("import sys; sys.exit('words')", 1),
    ("import sys; sys.exit(True)", 1),
    ("import sys; sys.exit(-1)", -1),
    ("import enum, sys\nsys.exit(enum.IntEnum('Code', {'BAD': 4}).BAD)", 4),
    ("import sys; sys.exit(2**70)", -1),
    ("exit()", 0),
    ("quit()", 0),
    ("import asyncio, sys\nawait asyncio.sleep(0)\nsys.exit(3)", 3),
]


@alone
def test_an_exit_tells_the_status_of_a_process() -> None:
    session = Session()
    for code, status in EXITS:
        body = session.error(code)
        assert body["name"] == "SystemExit"
        assert body["details"] == {"exit_code": status}, code
        assert type(body["details"]["exit_code"]) is int
        assert session.value("1") == "1"


@alone
def test_a_quiet_cell_shows_nothing_and_leaves_no_history() -> None:
    session = Session()
    assert session.value("x = 5\nx", quiet=True) is None
    assert session.value("x") == "5"
    assert session.value("In") == "['', 'x', 'In']"
    assert session.value("Out") == "{1: 5, 2: ['', 'x', 'In', 'Out']}"


@alone
def test_a_cell_without_history_shows_its_value_and_is_not_counted() -> None:
    session = Session()
    body = session.run("5", store_history=False)
    assert (body["data"]["text/plain"], body["execution_count"]) == ("5", 1)
    assert session.run("6")["execution_count"] == 1
    assert session.value("In[1]") == "'6'"


@pytest.mark.parametrize("code", ["", "  ", "\n\n", "# comment", "1/0", "(", "x = 1"])
@alone
def test_the_numbers_of_inputs_stay_right_behind_any_cell(code: str) -> None:
    session = Session()
    session.run("'first'")
    session.run(code)
    body = session.run("'third'")
    assert body["execution_count"] == 3
    assert session.value("In[3], Out[3], _3, _i3, _i, _ii") == repr(
        ("'third'", "third", "third", "'third'", "'third'", code.rstrip("\n"))
    )


@alone
def test_a_cell_may_have_a_name_in_tracebacks() -> None:
    session = Session()
    session.value("def f():\n    1 / 0", name="/home/me/tool.py")
    text = "\n".join(session.error("f()")["traceback"])
    assert "File /home/me/tool.py:2" in text.replace(", line ", ":")
    assert "Cell In[2], line 1" in text


@alone
def test_the_same_source_twice_keeps_its_own_number() -> None:
    session = Session()
    session.value("def f(): 1 / 0")
    session.value("g = f\ndef f(): 1 / 0")
    assert "Cell In[1]" in "\n".join(session.error("g()")["traceback"])


CAPTURED = [
    "%%capture kept\n5",
    "%%capture kept\n%time 5",
    "with capture_output() as kept: _ = get_ipython().run_cell('5')",
    "with capture_output() as kept:\n    await asyncio.sleep(0)\n    _ = get_ipython().run_cell('5')",
]


@alone
def test_the_values_of_cells_within_a_cell_are_captured() -> None:
    session = Session()
    session.value("import asyncio\nfrom IPython.utils.capture import capture_output")
    for code in CAPTURED:
        assert session.value(code) is None, code
        assert session.value("[output.data for output in kept.outputs]") == "[{'text/plain': '5'}]", code
    assert session.value("_ = get_ipython().run_cell('5')") == "5"
    assert session.value("6") == "6"


@alone
def test_a_display_hook_of_the_codes_own_is_asked_up_to_the_end_of_its_cell() -> None:
    session = Session()
    assert session.value("import sys\nseen = []\nsys.displayhook = seen.append\n7") is None
    assert session.value("seen") == "[7]"


@alone
def test_callbacks_run_around_a_cell_and_their_errors_do_not_end_it() -> None:
    session = Session()
    session.value(
        "calls = []\n"
        "events = get_ipython().events\n"
        "for name in ('pre_execute', 'pre_run_cell', 'post_execute', 'post_run_cell'):\n"
        "    events.register(name, lambda *info, name=name: calls.append(name))\n"
        "events.register('pre_execute', lambda: 1 / 0)"
    )
    session.value("calls.clear()")
    session.value("calls.append('cell')")
    session.raw(1)
    assert session.value("calls") is not None
    assert b"ZeroDivisionError" in session.text(1)
    names = ["pre_execute", "pre_run_cell", "cell", "post_execute", "post_run_cell"]
    assert session.value("calls[2:7]") == repr(names)


RESULTS = [
    ("5", (True, 5, None, None)),
    ("5;", (True, None, None, None)),
    ("1/0", (False, None, None, "ZeroDivisionError")),
    ("await no()", (False, None, None, "NameError")),
    ("x = = 1", (False, None, "SyntaxError", None)),
    ("_ = get_ipython().run_cell('6')\n7", (True, 7, None, None)),
]


@alone
def test_callbacks_behind_a_cell_get_its_result() -> None:
    session = Session()
    session.value(
        "def name(error): return error and type(error).__name__\n"
        "def note(result):\n"
        "    found = name(result.error_before_exec), name(result.error_in_exec)\n"
        "    results[result.info.raw_cell] = result.execution_count, (result.success, result.result, *found)\n"
        "results = {}\n"
        "get_ipython().events.register('post_run_cell', note)"
    )
    for count, (code, expected) in enumerate(RESULTS, start=2):
        session.run(code)
        assert session.python.user_ns["results"][code] == (count, expected)
        assert session.python.last_execution_succeeded is expected[0]


@alone
def test_code_is_told_how_the_cell_before_ended() -> None:
    session = Session()
    asked = "shell = get_ipython()\nshell.last_execution_succeeded, shell.last_execution_result.info.raw_cell"
    for code, succeeded in (("1/0", False), ("'fine'", True), ("x = = 1", False)):
        session.run(code)
        assert session.value(asked) == str((succeeded, code))


@alone
def test_the_verdict_has_a_count_and_a_duration() -> None:
    session = Session()
    for count, code in enumerate(("1", "1/0", "("), start=1):
        body = session.run(code)
        assert body["execution_count"] == count
        assert 0 <= body["duration"] < 60


@alone
def test_engine_names_survive_a_reset() -> None:
    session = Session()
    session.run("x = 5")
    session.run("%reset -f")
    assert session.value("'x' in globals()") == "False"
    assert session.value("type(In).__name__, type(Out).__name__, get_ipython() is not None") == "('list', 'dict', True)"
    session.value("capsule_progress(1, 2)")


@pytest.mark.parametrize("names", ["_oh", "Out", "In", "_ih", "_", "_i", "_oh, Out, In, _ih, _dh, exit, get_ipython"])
@alone
def test_engine_names_survive_user_code(names: str) -> None:
    session = Session()
    session.run("5")
    session.run(f"del {names}")
    assert session.value("6") == "6"
    assert session.value("Out[3], In[3], _") == "(6, '6', 6)"
    assert session.value("1") == "1"


@alone
def test_a_value_that_cannot_be_shown_does_not_fail_the_cell() -> None:
    """As in IPython: the error of the repr is shown on stderr, and the value is there."""
    session = Session()
    session.value("class Broken:\n    def __repr__(self): raise LookupError('no repr')")
    assert session.value("Broken()") is None
    assert b"no repr" in session.text(1)
    assert session.value("type(_).__name__") == "'Broken'"


@pytest.mark.parametrize(
    ("source", "silent"),
    [
        ("x;\n", True),
        ("x; # c\n", True),
        ("x\n", False),
        ("';'\n", False),
        ("x;\n\n\n", True),
        ("x; y\n", False),
        ("((;\n", False),
    ],
)
def test_which_sources_end_in_a_semicolon(source: str, silent: bool) -> None:
    assert ends_silently(source) is silent
