"""Jupyter's own test of kernels, for each way in which one can start."""

from __future__ import annotations

from typing import Any, ClassVar

import jupyter_kernel_test
import pytest

from tests.acceptance.jupyter import support

pytestmark = pytest.mark.usefixtures("home")


class Samples:
    """What the tests run; none of them is left out."""

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar = [{"text": "zi", "matches": {"zip"}}]
    complete_code_samples: ClassVar = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples: ClassVar = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples: ClassVar = ["import = 7q"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result: ClassVar = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
    ]
    code_display_data: ClassVar = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    supported_history_operations = ("tail", "range", "search")
    code_history_pattern = "1?2*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestProvisioner(Samples, jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.PROVISIONER


class TestShim(Samples, jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.SHIM


class TestDefaultProvisioner(Samples, jupyter_kernel_test.KernelTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.PLAIN


class Welcomed:
    support_iopub_welcome = True
    kc: Any

    def tearDown(self) -> None:
        # The client's heartbeat thread fails when it is stopped before it has begun.
        self.kc.wait_for_ready(timeout=support.LONG)


class TestWelcomeByProvisioner(Welcomed, jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.PROVISIONER


class TestWelcomeByShim(Welcomed, jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.SHIM


class TestWelcomeByDefaultProvisioner(Welcomed, jupyter_kernel_test.IopubWelcomeTests):  # type: ignore[misc]  # it has no types
    kernel_name = support.PLAIN


def test_no_test_of_the_suite_is_left_out() -> None:
    """A sample that is missing would skip its test."""
    wanted: dict[str, Any] = {
        name: value
        for name, value in vars(jupyter_kernel_test.KernelTests).items()
        if name.startswith(
            ("code_", "completion_", "complete_", "incomplete_", "invalid_", "supported_", "language_", "file_")
        )
    }
    assert set(wanted) <= set(vars(Samples))
