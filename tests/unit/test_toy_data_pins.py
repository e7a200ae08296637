"""Same seed, same voxels: pinned checksums, and why they hold on every machine."""

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toy_data import make_case
from toy_data.anatomy import compute_tissue
from toy_data.atlas import load_atlas
from toy_data.exact import RandomStream, _compute_spline_weights, compute_field

ROOT = Path(__file__).resolve().parents[2]

# SHA-256 over the five arrays' checksums, of (site, index, seed, size). Changed voxels are a new toy_data.VERSION.
PINS = {
    (1, 0, 0, "ci"): "bf55394c64eb6233d8d21b41b50cae27cf74df085e3677e545284ad61c4ec87c",
    (3, 1, 0, "ci"): "f76a724421ac4e92e191c2a0b65d751675c0d19a7503b48dd096b228ee71ad2e",
    (1, 1, 0, "ci"): "8db55f43b58988210707f4b120e62a4746dd75a05a7e593dfc4ceafc1be78a9c",
    (1, 2, 0, "ci"): "aad046f35defb8e56f0bc57df4b69d9a90a00d63650650d9ffcf51e1d35e276b",
    (2, 4, 7, "ci"): "e6a0828dfa405d25529958a34c6a5fe80c81f9a395adf9ba8cc6a17ec6217643",
    (6, 1, 1, "ci"): "7c30aab506cf5c0fefc417f7452c13e1439d5318ca64376b8d66ad8af85a084e",
}


def digest(key: tuple[int, int, int, str]) -> str:
    return hashlib.sha256(" ".join(make_case(*key).compute_checksums().values()).encode()).hexdigest()


@pytest.mark.parametrize("key", PINS, ids=str)
def test_voxels_are_pinned(key: tuple[int, int, int, str]) -> None:
    assert digest(key) == PINS[key]


def test_raw_random_words_are_pinned() -> None:
    words = RandomStream((1, 2, 3)).words(3)
    assert [int(word) for word in words] == [12368030237656201616, 2047858591075935483, 9435677134316251571]


def test_voxels_do_not_depend_on_vector_instructions() -> None:
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from test_toy_data_pins import PINS, digest\n"
        "assert all(digest(key) == PINS[key] for key in list(PINS)[:2])\n"
        "import numpy; print(numpy.show_config(mode='dicts')['SIMD Extensions'].get('found', []))"
    )
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(extensions.get("found", [])),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT), str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_smooth_field_is_exact_arithmetic() -> None:
    axes = [np.arange(count, dtype=np.float64) * step for count, step in ((5, 7.25), (4, 20.0), (3, 31.5))]
    counts = (272 // 34 + 4, 272 // 34 + 4, 192 // 34 + 4)
    field = compute_field(RandomStream((5,)), axes, 34.0)
    coefficients = RandomStream((5,)).bell(counts)
    weights = [_compute_spline_weights(axis, 34.0, n) for axis, n in zip(axes, counts, strict=True)]
    exact = [[[int(value) for value in row] for row in matrix] for matrix in weights]
    for i, j, k in itertools.product(range(5), range(4), range(3)):
        total = sum(
            exact[0][i][m] * exact[1][j][n] * exact[2][k][o] * int(coefficients[m, n, o])
            for m, n, o in itertools.product(*(range(n) for n in counts))
        )
        assert field[i, j, k] * 2**36 == total


def test_interpolation_is_exact_arithmetic() -> None:
    atlas = load_atlas()
    rng = np.random.default_rng(0)
    positions = [rng.uniform(60, 110, (10, 10, 10)) for _ in range(3)]
    tissue = compute_tissue(atlas, positions)
    steps = [np.rint(position * 64).astype(np.int64) for position in positions]
    total = np.zeros((10, 10, 10), dtype=np.int64)
    for corner in itertools.product((0, 1), repeat=3):
        share = np.ones_like(total)
        for step, far in zip(steps, corner, strict=True):
            share *= step % 64 if far else 64 - step % 64
        index = tuple(step // 64 + far for step, far in zip(steps, corner, strict=True))
        total += share * atlas.wm[index].astype(np.int64)
    np.testing.assert_array_equal(tissue.white, total / 64.0**3 / 255.0)


def test_other_seed_site_and_case_give_other_voxels() -> None:
    digests = {digest(key) for key in ((1, 0, 0, "ci"), (1, 0, 1, "ci"), (1, 3, 0, "ci"), (2, 0, 0, "ci"))}
    assert len(digests) == 4
