"""mlcube.yaml from strangers: read with mlcube's rules, checked against a strict form, never near a shell."""

import os
from pathlib import Path

import pytest

from fedeval.cube import find_manifest, load_cube
from fedeval.errors import InputError, ManifestError, ParameterError, UnsafeManifestError
from fedeval.strict_yaml import load_mapping
from tests.cube_factory import INFER, make_cube, medperf

ROOT = Path(__file__).resolve().parents[2]
CUBES = sorted(path.parent for path in (ROOT / "mlcubes").glob("*/mlcube/mlcube.yaml"))


@pytest.mark.parametrize("folder", CUBES, ids=lambda path: path.parent.name)
def test_own_cubes_are_accepted(folder: Path) -> None:
    manifest = load_cube(folder)
    assert manifest.build_file.is_file()
    assert manifest.name == folder.parent.name


def test_path_may_be_folder_parent_or_file(tmp_path: Path) -> None:
    folder = make_cube(tmp_path / "net")
    wanted = folder / "mlcube.yaml"
    assert {find_manifest(path) for path in (wanted, folder, folder.parent)} == {wanted}


def test_missing_path_and_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_manifest(tmp_path / "nowhere")
    (tmp_path / "README.txt").touch()
    with pytest.raises(ManifestError, match=r"(?s)no mlcube.yaml.*README.txt.*next"):
        find_manifest(tmp_path)


def test_reading_rules_are_mlcubes(tmp_path: Path) -> None:
    tasks = """
    infer:
      parameters:
        inputs:
          data_path: data/
          parameters_file: {type: file, default: "null"}
          checkpoint_path: {}
        outputs:
          output_path: {type: directory}
    """
    task = load_cube(make_cube(tmp_path, tasks=tasks)).task("infer")
    found = [(spec.name, spec.kind, spec.default, spec.is_output, spec.is_null) for spec in task.parameters]
    assert found == [
        ("data_path", "directory", "data/", False, False),
        ("parameters_file", "file", "null", False, True),
        ("checkpoint_path", "unknown", "checkpoint_path", False, False),
        ("output_path", "directory", "output_path", True, False),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: [unclosed", "not valid YAML"),
        ("- a\n- b\n", "not a mapping"),
        ("name: x\ntasks: {infer: {}}\n", "section 'docker' is missing"),
        ("docker: {image: a/b:1}\n", "section 'tasks' is missing"),
        ("docker: {image: a/b:1}\ndocker: {image: c/d:1}\ntasks: {infer: {}}\n", "duplicate key 'docker'"),
        ("a: &x [1]\nb: *x\n", "aliases are not allowed"),
        ("docker: {image: a/b:1, shm_size: 1g}\ntasks: {infer: {}}\n", "unknown keys in the docker section"),
        ("docker: {}\ntasks: {infer: {}}\n", "section 'docker' is missing"),
        ("docker: {build_file: Dockerfile}\ntasks: {infer: {}}\n", "docker.image is missing"),
        ("docker: {image: a/b:1}\nplatform: {accelerator_count: many}\ntasks: {infer: {}}\n", "accelerator_count"),
        ("docker: {image: a/b:1}\ntasks: {infer: {parameters: {inputs: {d: {type: dir}}}}}\n", "unknown parameter"),
        ("docker: {image: a/b:1}\ntasks: {infer: {parameters: {outputs: {d: out}}}}\n", "an output needs a type"),
        ("docker: {image: a/b:1}\ntasks: {infer: {parameters: {inputs: {d: x/}, outputs: {d: y/}}}}\n", "both input"),
    ],
)  # fmt: skip
def test_broken_manifest_is_one_clear_error(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "mlcube.yaml").write_text(text)
    with pytest.raises(ManifestError) as caught:
        load_cube(tmp_path)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"cpu_args": "--privileged"},
        {"gpu_args": "--gpus=1 -v /:/host"},
        {"cpu_args": "--network=host"},
        {"cpu_args": "--net host"},
        {"cpu_args": "--shm-size=1g --pid=host"},
        {"cpu_args": "--cap-add=ALL"},
        {"cpu_args": "--memory 1g --device /dev/mem"},
        {"gpu_args": "'$(touch owned)'"},
        {"cpu_args": "'--gpus=1; touch owned'"},
        {"cpu_args": "'`touch owned`'"},
        {"--network": "host"},
        {"--security-opt": "seccomp=unconfined"},
        {"docker": "'docker; touch owned'"},
        {"build_context": "'../project; touch owned'"},
    ],
    ids=str,
)
def test_dangerous_run_arguments_are_refused(tmp_path: Path, keys: dict[str, str]) -> None:
    merged = dict(keys)
    folder = make_cube(tmp_path)
    text = (folder / "mlcube.yaml").read_text()
    if "build_context" in merged:
        text = text.replace("build_context: ../project", f"build_context: {merged.pop('build_context')}")
    added = "".join(f"  {key}: {value}\n" for key, value in merged.items())
    (folder / "mlcube.yaml").write_text(text.replace("  build_file", added + "  build_file"))
    with pytest.raises(UnsafeManifestError):
        load_cube(folder)


@pytest.mark.parametrize(
    "arguments", ["--gpus=1", "--gpus all --shm-size=8g", "--shm-size 2g", "--memory=4g --rm", "--user 0:0"]
)
def test_arguments_that_upstream_cubes_carry_are_accepted(tmp_path: Path, arguments: str) -> None:
    assert load_cube(make_cube(tmp_path, docker_keys={"gpu_args": f"'{arguments}'"})).image


@pytest.mark.parametrize(
    "image", ["x; touch owned", "$(touch owned)", "a b", "../x", "-v", "A/B:1", "x:1\\ntouch", "x" * 300, "${HOME}/x"]
)
def test_image_text_meant_for_a_shell_is_refused(tmp_path: Path, image: str) -> None:
    with pytest.raises(UnsafeManifestError):
        load_cube(make_cube(tmp_path, image=image))


@pytest.mark.parametrize(
    "image", ["a/b:1", "fedeval/fets-model:0.1.0", "host.example:5000/a/b_c.d", f"a@sha256:{'0' * 64}"]
)
def test_image_references_are_accepted(tmp_path: Path, image: str) -> None:
    assert load_cube(make_cube(tmp_path, image=image)).image == image


def test_misspelt_parameter_names_the_right_one(tmp_path: Path) -> None:
    manifest = load_cube(make_cube(tmp_path, tasks=INFER.replace("data_path", "data_pth")))
    with pytest.raises(ParameterError, match="rename data_pth to data_path"):
        manifest.check_task("infer", ("data_path", "output_path"))


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("{data_path: data/}", "{output_path: {type: file, default: x}}"),  # would mount the folder above, writable
        ("{}", "{output_path: out/, data_path: data/}"),  # would mount the inputs writable
        ("{data_path: data/, output_path: out/}", "{}"),
        ("{data_path: {type: file}}", "{output_path: out/}"),
    ],
)
def test_parameters_of_another_kind_are_refused(tmp_path: Path, inputs: str, outputs: str) -> None:
    tasks = f"infer: {{parameters: {{inputs: {inputs}, outputs: {outputs}}}}}"
    manifest = load_cube(make_cube(tmp_path, tasks=tasks))
    with pytest.raises(ManifestError, match="declared as something else"):
        manifest.check_task("infer", ("data_path", "output_path"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("build_context", "/"),
        ("build_context", "../../.."),
        ("build_context", f"{ROOT}/mlcubes/model/project"),  # a build there would count as this checkout's own
        ("build_file", "/etc/passwd"),
        ("build_file", "../mlcube/Dockerfile"),
    ],
)
def test_what_is_built_belongs_to_the_cube(tmp_path: Path, key: str, value: str) -> None:
    folder = make_cube(tmp_path / "net")
    old = {"build_context": "../project", "build_file": "Dockerfile"}[key]
    text = (folder / "mlcube.yaml").read_text()
    (folder / "mlcube.yaml").write_text(text.replace(f"{key}: {old}", f"{key}: {value}"))
    with pytest.raises(UnsafeManifestError, match="leads out of the cube"):
        load_cube(folder)


@pytest.mark.parametrize("name", ["project", "mlcube/workspace"])
def test_links_out_of_the_cube_are_refused(tmp_path: Path, name: str) -> None:
    """Such a workspace would mount any folder of the host, labels too; such a project would be sent to the build."""
    folder = make_cube(tmp_path / "net")
    (tmp_path / "elsewhere").mkdir()
    place = folder.parent / name
    place.rename(tmp_path / "old")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeManifestError, match="leads out of the cube"):
        load_cube(folder)
    place.unlink()
    place.symlink_to(place)
    with pytest.raises((ManifestError, UnsafeManifestError)):
        load_cube(folder).check_task("infer", ("data_path", "output_path"))


@pytest.mark.parametrize(
    "scalar",
    ["2024-99-99", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "9" * 5000, "!!python/name:os.getcwd"],
    ids=lambda text: text[:12],
)
def test_scalars_that_are_none_are_one_clear_error(tmp_path: Path, scalar: str) -> None:
    (tmp_path / "mlcube.yaml").write_text(f"docker: {{image: a/b:1}}\nname: {scalar}\n")
    with pytest.raises(ManifestError, match="not valid YAML"):
        load_cube(tmp_path)


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    """A container may leave a link to a file of the host where its results are expected."""
    (tmp_path / "secret.yaml").write_text("a: 1")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    assert load_mapping(tmp_path / "secret.yaml", ManifestError, "the file") == {"a": 1}
    for name, part in {"link": "a link; expected", "pipe": "not a regular file", "none": "No such file"}.items():
        with pytest.raises(ManifestError, match=part):
            load_mapping(tmp_path / f"{name}.yaml", ManifestError, "the file")


@pytest.mark.parametrize("platform", ["process", "docker"])
@pytest.mark.parametrize("key", ["image", "gpu_args", "task", "default"])
def test_shell_text_is_not_executed(tmp_path: Path, key: str, platform: str) -> None:
    """The whole command on a hostile manifest: refused with exit code 12, and nothing it names was run."""
    text = f"$(touch {tmp_path}/owned); touch {tmp_path}/owned"
    if key == "image":
        folder = make_cube(tmp_path / "c", image=f"x; touch {tmp_path}/owned")
    elif key == "gpu_args":
        folder = make_cube(tmp_path / "c", docker_keys={"gpu_args": f"'{text}'"})
    elif key == "task":
        folder = make_cube(tmp_path / "c", tasks=INFER + f"  '{text}': {{}}\n")
    else:
        folder = make_cube(tmp_path / "c", tasks=INFER.replace("data/", f"'{text}'"))
    done = medperf("--platform", platform, "test", "-b", "1", "-m", folder, cwd=tmp_path)
    assert done.returncode == 12, done.stderr
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("image", ["fedeval/fets-metrics:0.1.0", "fedeval-base:bookworm"])
def test_a_model_cannot_take_over_another_image(tmp_path: Path, image: str) -> None:
    done = medperf("test", "-b", "1", "-m", make_cube(tmp_path / "c", image=image))
    assert done.returncode == 12 and "has a name that is taken" in done.stderr, done.stderr
