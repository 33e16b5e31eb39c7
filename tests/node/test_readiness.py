"""Ready means that a prediction succeeded; everything else is told as what it is, by its deadline."""

import ast
import contextlib
import importlib
import io
import math
import re
import struct
import sys
import zipfile

import pytest

from deephpc.node.readiness_samples import made_up_samples
from deephpc.serve.module_description import Argument
from tests.fakes.waiting import GROWING_S, wait_until
from tests.node.gateway_process import gateway, processes_in

TWO_PORTS = """
import socket, time
both = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(f"port {each.getsockname()[1]}" for each in both), flush=True)
time.sleep(600)
"""


def test_the_stages_come_in_order_and_the_address_is_bound_before_it_is_published():
    with gateway() as running:
        running.wait_for_stage("ready")
        assert running.stages() == ["listening", "loading", "warming", "ready"]
        with running.session() as session:
            assert session.get("/ready").json()["stage"] == "ready"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reason", "last_line"),
    [
        ("stand-in", "DEEPaaS's test model in place of demo-module", None),
        ("crash", "the server ended with exit code 9", "the model crashes now: no weights"),
        ("fail", "the first prediction of demo_module failed with 500", None),
        ("import-fails", "the server ended with exit code 3", "ModuleNotFoundError: No module named 'weights'"),
    ],
)
def test_a_server_that_cannot_be_used_says_why_and_is_gone(mode, reason, last_line):
    with gateway(mode) as running:
        assert running.wait_for_end() == 1
        last = running.last_event()
        assert last["stage"] == "failed"
        assert reason in last["reason"]
        assert last_line is None or last_line in last["last_lines"]
        assert not (running.folder / "endpoint.json").exists()
        wait_until(lambda: not processes_in(running.folder), "the end of everything")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "reason"), [("hang", "it does not answer its first prediction"), ("silent", "it does not listen")]
)
def test_a_server_that_does_not_come_up_is_ended_by_its_deadline(mode, reason):
    for ready_within_s in GROWING_S:
        with gateway(mode, ready_within_s=ready_within_s) as running:
            assert running.wait_for_end() == 1
            last, stages = running.last_event(), running.stages()
            wait_until(lambda: not processes_in(running.folder), "the end of everything")
        if mode == "silent" or "warming" in stages:
            break
    assert reason in last["reason"]


def test_before_a_server_is_ready_it_has_been_asked_all_that_a_client_asks_by_the_way_of_a_client():
    with gateway() as running:
        running.wait_for_stage("ready")
        with running.session() as session:
            asked = [(path, kind) for path, way, kind in session.get("/seen").json()["requests"] if way == "https"]
    predicted = ("/v2/models/demo_module/predict/", "multipart/form-data")
    assert 2 < asked.count(predicted) <= 11, "a quick module predicts again, and again"
    assert {path for path, _ in asked} >= {"/v2/models/", "/v2/models/demo_module/", "/swagger.json"}


@pytest.mark.slow
def test_a_server_that_fails_after_the_first_prediction_is_ready_all_the_same():
    with gateway("fail-later") as running:
        running.wait_for_stage("ready")
        told = (running.folder / "gateway.err").read_text()
    assert "prediction 2 of the same sample: 500: ValueError: no weights" in told


@pytest.mark.slow
def test_a_server_that_hangs_after_the_first_prediction_is_ready_at_its_deadline():
    for ready_within_s in GROWING_S:
        with gateway("hang-later", ready_within_s=ready_within_s) as running:
            wait_until(lambda: running.stages()[-1:] in (["ready"], ["failed"]), "its deadline")
            last, told = running.last_event(), (running.folder / "gateway.err").read_text()
        if last["stage"] == "ready":
            break
        assert "it does not answer its first prediction" in last["reason"] or "it does not listen" in last["reason"]
    assert last["stage"] == "ready"
    assert "prediction 2" not in told


def test_while_a_server_gets_ready_its_clients_are_told_to_come_again():
    with gateway("hang") as running:
        running.wait_for_stage("warming")
        with running.session() as session:
            answer = session.get("/v2/models/")
        assert (answer.status_code, answer.json()["stage"]) == (503, "warming")
        assert answer.headers["retry-after"] == "1"


def test_the_users_own_sample_is_what_is_predicted_first(tmp_path):
    sample = tmp_path / "cell.png"
    sample.write_bytes(b"cell")
    with gateway(sample=(("image", str(sample)), ("top", "3"))) as running:
        running.wait_for_stage("ready")
        assert running.process.poll() is None


@pytest.mark.slow
def test_a_sample_that_does_not_fit_is_refused_with_its_name(tmp_path):
    with gateway(sample=(("imgae", str(tmp_path / "x")),)) as running:
        assert running.wait_for_end() == 1
        assert "did you mean --sample image" in running.last_event()["reason"]


def test_a_server_without_a_first_prediction_is_ready_when_the_module_is_served():
    with gateway("fail", predicts_first=False) as running:
        running.wait_for_stage("ready")
        assert "warming" in running.stages()


def test_another_service_is_ready_when_it_answers():
    with gateway(kind="command", model=None) as running:
        running.wait_for_stage("ready")
        assert running.stages() == ["listening", "loading", "ready"]


def test_a_server_nobody_uses_ends_by_itself():
    with gateway(idle_stop_s=0.5) as running:
        running.wait_for_stage("ready")
        assert running.wait_for_end() == 0
        assert running.last_event()["reason"] == "nobody used it for 0.5 s"
        assert not (running.folder / "endpoint.json").exists()


def test_a_server_that_is_told_to_end_lets_an_answer_arrive():
    with gateway() as running:
        running.wait_for_stage("ready")
        with running.session() as session:
            with session.stream("GET", "/ticks") as answer:
                lines = answer.iter_lines()
                assert next(lines) == "first"
                running.process.terminate()
                wait_until(lambda: not (running.folder / "endpoint.json").exists(), "the address to go")
                wait_until(lambda: running.stages()[-1] == "stopping", "the end to begin")
            assert running.wait_for_end() == 0
        assert not processes_in(running.folder)


@pytest.mark.slow
def test_a_program_that_ignores_the_end_is_killed():
    words = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    with gateway(words=lambda _socket: words, options=["--grace", "0.5"]) as running:
        running.wait_for_stage("loading")
        running.process.terminate()
        assert running.wait_for_end() == 0


def test_samples_follow_the_arguments_words():
    def first(**about):
        return next(iter(made_up_samples([Argument(name="x", type="file", required=True, **about)]))).files["x"]

    assert first(description="A picture")[1].startswith(b"\x89PNG")
    assert first(description="A PGM image")[1].startswith(b"P5")
    assert first(description="Audio to transcribe")[1].startswith(b"RIFF")
    assert first(description="Table as CSV")[0] == "sample.csv"


def tried(name: str, description: str = "") -> list[tuple[str, bytes]]:
    """Return the files that are tried for an argument, in order."""
    argument = Argument(name=name, type="file", required=True, description=description)
    return [sample.files[name] for sample in made_up_samples([argument])]


USUAL = ["sample.png", "sample.pgm", "sample.wav", "sample.csv"]


@pytest.mark.parametrize(
    ("name", "description", "first"),
    [  # what modules of the catalogue say
        ("input_file", "NPY file with np.arrays for predictions.", ["sample.npy", "digit.npy"]),
        ("input_file", "Input a 4-channel .npy file to infer upon.", ["sample.npy", "digit.npy"]),
        ("series", "A numpy array of hours", ["sample.npy", "digit.npy"]),
        ("input_file", "NPZ file with training images and labels.", ["sample.npz", "digit.npz"]),
        ("images", "A zip file containing the images to classify (all png)", ["sample.zip"]),
        ("zip_data", "", ["sample.zip"]),
        ("scene", "Sentinel-2 scene as GeoTIFF", ["sample.tif"]),
        ("annotations", "COCO JSON", ["sample.json"]),
        ("files", "accepted image formats: .bmp, .dng, .jpg, .png, .tif, .tiff, .webp", []),
        ("jason", "a compressed ripped-off tiffin of zippers by numpyre", []),
    ],
)
def test_files_that_few_modules_read_are_tried_where_an_arguments_words_name_them(name, description, first):
    files = [file for file, _ in tried(name, description)]
    assert files[: len(first)] == first
    assert sorted(set(USUAL) & set(files)) == sorted(USUAL)
    assert (files == USUAL) == (not first and ".tif" not in description)


def read_npy(content: bytes) -> tuple[str, tuple[int, ...], bytes]:
    """Read an array by the rules of NEP 1, version 1.0."""
    assert content[:8] == b"\x93NUMPY\x01\x00"
    end = 10 + int.from_bytes(content[8:10], "little")
    assert end % 64 == 0
    assert content[end - 1 : end] == b"\n"
    head = ast.literal_eval(content[10:end].decode("ascii"))
    assert sorted(head) == ["descr", "fortran_order", "shape"]
    assert head["fortran_order"] is False
    return head["descr"], head["shape"], content[end:]


@pytest.mark.parametrize(
    ("description", "shape"),
    [("NPY file", (64, 64, 3)), ("a 4-channel .npy file", (64, 64, 4)), ("npy with 13 bands", (64, 64, 13))],
)
def test_a_made_up_array_is_one_of_the_channels_that_are_told(description, shape):
    for (_, content), expected in zip(tried("x", description), (shape, (1, 28, 28)), strict=False):
        kind, found, numbers = read_npy(content)
        values = struct.unpack(f"<{math.prod(expected)}f", numbers)
        assert (kind, found, min(values), max(values)) == ("<f4", expected, 0.0, 1.0)
        with contextlib.suppress(ImportError):
            numpy = importlib.import_module("numpy")
            array = numpy.load(io.BytesIO(content))
            assert (array.shape, str(array.dtype), array.ravel().tolist()) == (expected, "float32", list(values))


def test_made_up_archives_hold_what_they_are_to_hold():
    def content(file: bytes) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}

    [(_, npz), (_, digit), *_] = tried("x", "npz")
    assert read_npy(content(npz)["arr_0.npy"])[1] == (64, 64, 3)
    assert read_npy(content(digit)["arr_0.npy"])[1] == (1, 28, 28)
    png = tried("image")[0][1]
    assert content(tried("zip", "of images")[0][1]) == {"sample.png": png}
    assert list(content(tried("zip", "of sounds")[0][1])) == ["sample.wav"]
    assert tried("zip")[0][1] == tried("zip")[0][1]


def test_a_made_up_tiff_is_a_whole_baseline_one():
    content = tried("scene", "GeoTIFF")[0][1]
    order, number, at = struct.unpack_from("<2sHI", content)
    assert (order, number) == (b"II", 42)
    [count] = struct.unpack_from("<H", content, at)
    entries = [struct.unpack_from("<HHII", content, at + 2 + 12 * n) for n in range(count)]
    assert [entry[0] for entry in entries] == sorted(entry[0] for entry in entries)
    tags = {tag: value for tag, _, _, value in entries}
    assert {tag: tags[tag] for tag in (256, 257, 259, 262, 277)} == {256: 64, 257: 64, 259: 1, 262: 2, 277: 3}
    assert struct.unpack_from("<HHH", content, tags[258]) == (8, 8, 8)
    assert tags[279] == 64 * 64 * 3
    assert tags[273] + tags[279] == len(content)


def test_required_values_are_made_up_within_their_bounds():
    arguments = [
        Argument(name="n", type="int", required=True, min=3),
        Argument(name="kind", required=True, choices=("cat", "dog")),
        Argument(name="left", type="int"),
    ]
    [sample] = made_up_samples(arguments)
    assert not sample.asks_nothing
    assert sample.values == {"n": 3, "kind": "cat"}


def test_optional_inputs_are_tried_one_by_one_and_none_at_last():
    files = [Argument(name="image", type="file"), Argument(name="audio", type="file")]
    arguments = [*files, Argument(name="top", type="int")]
    *samples, last = made_up_samples(arguments)
    assert [list(one.files) for one in samples] == [["image"]] * 4 + [["audio"]] * 4
    assert samples[0].files["image"][0] == "sample.png"
    assert samples[4].files["audio"][0] == "sample.wav"
    assert (last.files, last.asks_nothing, str(last)) == ({}, True, "no input")


def test_each_required_file_is_of_the_kind_that_its_own_words_tell():
    arguments = [
        Argument(name="image", type="file", required=True),
        Argument(name="speech", type="file", required=True),
        Argument(name="points", type="file", required=True, description="CSV"),
    ]
    first = next(iter(made_up_samples(arguments)))
    assert [file for file, _ in first.files.values()] == ["sample.png", "sample.wav", "sample.csv"]
    assert str(first) == "image=sample.png speech=sample.wav points=sample.csv"


OF_IMAGE, OF_AUDIO = (
    [f"{name}=sample.{ending}" for ending in endings.split()]
    for name, endings in (("image", "png pgm wav csv"), ("audio", "wav png pgm csv"))
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("takes", "asked", "reason"),
    [
        ("image?,audio?=", [*OF_IMAGE, *OF_AUDIO, "no input"], "warmed without input; give the server an input of"),
        ("image,zip?=image", ["image=sample.png"], ""),
        ("image?,audio?,table?=table", [*OF_IMAGE, *OF_AUDIO, "table=sample.csv"], ""),
    ],
    ids=["only without", "beside a required one", "the last of three"],
)
def test_what_was_sent_first_and_answered_is_shown_and_to_ask_nothing_is_no_success(takes, asked, reason):
    wanted = takes.partition("=")[2] or "no file"
    with gateway(takes) as running:
        running.wait_for_stage("ready")
        told, ready = (running.folder / "gateway.err").read_text(), running.last_event()
    refusal, good = f"200: give {wanted}", '200: {"status": "OK", "predictions": "as wanted"}'
    answers = [refusal] * (len(asked) - 1) + [good]
    shown = [line for line in told.splitlines() if "the first prediction" in line]
    assert [line.partition("with a made-up sample ")[2] for line in shown] == [
        f"({sample}): {answer}" for sample, answer in zip(asked, answers, strict=True)
    ]
    assert ready.get("reason", "")[: len(reason) or None] == reason


@pytest.mark.slow
def test_an_error_in_the_body_of_a_good_answer_is_not_ready():
    with gateway("soft-fail") as running:
        assert running.wait_for_end() == 1
        reason = running.last_event()["reason"]
    assert reason.startswith("the first prediction of demo_module failed with 200: the picture is too dark; ")
    assert "--sample NAME=VALUE" in reason


@pytest.mark.slow
def test_a_server_that_listens_on_a_port_of_its_own_is_told_so():
    words = [sys.executable, "-m", "http.server", "0"]
    for ready_within_s in GROWING_S:
        with gateway(kind="command", model=None, words=lambda _socket: words, ready_within_s=ready_within_s) as running:
            assert running.wait_for_end() == 1
            reason, log = running.last_event()["reason"], (running.folder / "gateway.err").read_text()
        if "it does not listen" not in reason:
            break
    assert "it listens on port" in reason
    assert "--port-env" in reason
    assert log.count("so far the server listens on port") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["sh", "-c", f"'{sys.executable}' -u -m http.server 0 & wait"],
        [sys.executable, "-u", "-m", "http.server", "--bind", "::1", "0"],
        [sys.executable, "-c", TWO_PORTS],
    ],
    ids=["in a child", "on [::1]", "on two"],
)
def test_ports_of_its_own_are_named_wherever_a_server_listens(words):
    with gateway(kind="command", model=None, words=lambda _socket: words) as running:
        log = running.folder / "gateway.err"
        wait_until(lambda: "listens on port" in log.read_text(), "its ports to be told")
        told, said = log.read_text(), (running.folder / "job.log").read_text()
    ports = sorted({int(port) for port in re.findall(r"port (\d+)", said)})
    assert f"so far the server listens on port {', '.join(map(str, ports))} alone" in told
