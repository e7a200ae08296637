"""README.md tells the truth: every command runs, the example is a real run, every error has its row.

``FEDEVAL_REGENERATE=1`` writes the example and the table of exit codes anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedeval import errors

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
REGENERATE = bool(os.environ.get("FEDEVAL_REGENERATE"))
RUN_ELSEWHERE = {"make demo", "make test"}  # the first by the example's test, the second is what runs this test


def block(name: str) -> str:
    found = re.search(rf"<!-- {name}\b.*?-->\n(.*?)\n?<!-- /{name} -->", README.read_text(), re.DOTALL)
    assert found, name
    return found.group(1)


def replace_block(name: str, text: str) -> None:
    whole = re.sub(
        rf"(<!-- {name}\b[^\n]*-->\n).*?\n?(<!-- /{name} -->)",
        lambda found: f"{found.group(1)}{text}\n{found.group(2)}",
        README.read_text(),
        flags=re.DOTALL,
    )
    README.write_text(whole)


def commands() -> list[str]:
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```", README.read_text(), re.DOTALL | re.MULTILINE)
    return [line.strip() for text in blocks for line in text.splitlines() if line.strip()]


def needs_docker(command: str) -> bool:
    return any(word in command for word in ("mlcube configure", "mlcube run", "--platform=docker", "--as-singularity"))


def parameters() -> list[object]:
    wanted = [command for command in commands() if command not in RUN_ELSEWHERE]
    return [pytest.param(text, marks=[pytest.mark.docker] if needs_docker(text) else [], id=text) for text in wanted]


@pytest.mark.parametrize("command", parameters())
def test_every_command_runs(command: str, dataset: Path, tmp_path: Path) -> None:
    env = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MEDPERF_TOY_SIZE": "ci",
        "MEDPERF_STORAGE": str(tmp_path / "storage"), "DATA": str(dataset / "data"), "OUT": str(tmp_path / "out"),
    }  # fmt: skip
    if "mlcube configure" in command:
        command += " -Pdocker.build_args.BASE_IMAGE=fedeval-base:bookworm"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True)
    expected = (0, 60) if "doctor" in command else (0,)  # 60: this machine is smaller than the benchmark's limits
    assert done.returncode in expected, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def masked(text: str) -> str:
    """What is equal from run to run: no times, no digests, no white space at line ends, no width of columns."""
    text = re.sub(r"\d+\.\d+ s\b", "T s", text)
    text = re.sub(r"-[0-9a-f]{8}\b", "-DIGEST", text)
    text = re.sub(r"\d{8}T\d{6}_\d{6}", "TIME", text)
    text = re.sub(r"[─━]+", "-", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.splitlines())


def test_example_is_what_make_demo_prints(tmp_path: Path) -> None:
    """The main job as a newcomer starts it, at full size: three cases, Dice above 0 everywhere, a report."""
    done = subprocess.run(
        ["make", "demo", f"STORAGE={tmp_path}/demo", "DEMO_ARGS=--platform=process"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    printed = done.stdout.replace(f"{tmp_path}/", "").rstrip()
    printed = printed[printed.index("  data_prep: get image") :]
    report = tmp_path / printed.splitlines()[-1].removeprefix("report").strip()
    assert report.is_file()
    rows = [line.split("│") for line in printed.splitlines() if line.startswith("│") and "ok" in line]
    assert len(rows) == 4
    assert all(float(cell) > 0 for row in rows for cell in row[2:8])
    if REGENERATE:
        replace_block("example-run", f"```text\n{printed}\n```")
    expected = block("example-run").removeprefix("```text\n").removesuffix("\n```")
    assert masked(printed) == masked(expected)


def error_table() -> str:
    rows = ["| code | error | meaning |", "|---|---|---|"]
    for error in sorted(all_errors(), key=lambda error: error.exit_code):
        meaning = str(error.__doc__).strip().splitlines()[0].rstrip(".")
        rows.append(f"| {error.exit_code} | `{error.__name__}` | {meaning} |")
    return "\n".join(rows)


def all_errors() -> list[type[errors.FedevalError]]:
    return [
        found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, errors.FedevalError)
    ]


def test_every_error_has_its_own_code_and_row() -> None:
    codes = [error.exit_code for error in all_errors()]
    assert len(set(codes)) == len(codes)
    if REGENERATE:
        replace_block("exit-codes", error_table())
    assert block("exit-codes") == error_table()
    tree = str(errors.__doc__)
    assert all(re.search(rf"{error.__name__}\s+{error.exit_code}\b", tree) for error in all_errors())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target
