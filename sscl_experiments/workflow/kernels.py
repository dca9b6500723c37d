"""Runs a notebook by papermill in a kernel of this Python, and keeps what it left."""

import sys
from pathlib import Path
from typing import Any

from sscl_core.files import write_bytes, write_text
from sscl_experiments import study
from sscl_experiments.surroundings import UTF8

from .locks import taking_part
from .planning import notebook_path, write_mark


def one_thread() -> dict[str, str]:
    """Jobs side by side: OpenMP threads that spin while they wait make each several times slower.

    Not "PASSIVE": where Turkish is spoken the small letter of I is another one than i.
    """
    return {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MKL_NUM_THREADS": "1"}


def execute(name: str, parameters: dict[str, Any], output: Path) -> None:
    """Runs a notebook by papermill in this Python; `output` grows by cells.

    A kernel that fails to start is tried again, once.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    how = {
        "kernel_name": "python3",
        "kernel_manager_class": _own_kernel(),
        "progress_bar": False,
        "log_output": True,
    }
    source, target = (_literally(path) for path in (notebook_path(name), output))
    for attempt in (1, 2):
        try:
            papermill.execute_notebook(source, target, parameters, **how)
            return
        except RuntimeError as error:
            if attempt == 2 or "Kernel died before replying" not in str(error):
                raise


def _literally(path: Path) -> str:
    """For papermill, which fills parameters into paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _own_kernel() -> type:
    """Starts kernels in this Python, whatever kernel of that name the user has elsewhere."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = KernelSpec(
        argv=argv, env=UTF8, display_name="Python 3", language="python", metadata={"debugger": True}
    )

    class OwnKernel(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return OwnKernel


def run_notebook(name: str, given: dict[str, Any], mark: Path | None = None) -> Path:
    """A notebook with the parameters `given`, checked first.

    Where they are the scale's own, it goes with the results of that scale. While it runs, and if
    it fails, what there is of it is results/<scale>/failed/<name>.ipynb; then it moves to
    notebooks/. At last `mark` lists what it left. `RuntimeError`: it failed.
    """
    parameters = study.resolve(name, given)
    out = study.out_dir(name, parameters)
    with taking_part(out):
        return _run_notebook(name, given, out, mark)


def _run_notebook(name: str, given: dict[str, Any], out: Path, mark: Path | None) -> Path:
    partial, final = out / "failed" / f"{name}.ipynb", out / "notebooks" / f"{name}.ipynb"
    for stale in (out / ".done").glob(f"{name}.notebook.*"):
        stale.unlink()
    named = {key: value for key, value in given.items() if value is not None}
    if named.get("scale") == "quick":
        del named["scale"]  # the notebook's own
    try:
        execute(name, named, partial)
    except Exception as error:
        traceback = partial.with_suffix(".txt")
        write_text(traceback, f"{error}\n")
        where = f"  as far as it got: {partial}\n  traceback: {traceback}"
        what = f"notebook {name} failed: {last_line(traceback)}"
        raise RuntimeError(f"{what}\n{where}") from error
    write_bytes(final, partial.read_bytes())
    partial.unlink()
    partial.with_suffix(".txt").unlink(missing_ok=True)
    if mark:
        write_mark(mark, out, name)
    return final


def last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "(no output)"
