"""What a job may ask for."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from deephpc.jobs.spec import Mail, Resources


def test_slurms_formats_of_time_and_memory_are_read():
    asked = Resources.model_validate({"walltime": "1-12", "memory_mib": "16G"})
    assert (asked.walltime, asked.memory_mib) == (timedelta(days=1, hours=12), 16384)


def test_resources_read_back_from_their_own_json():
    asked = Resources(nodes=2, walltime=timedelta(minutes=90), memory_mib=0, gpus_per_node=4, gpu_type="a100")
    assert Resources.model_validate_json(asked.model_dump_json()) == asked


def test_counts_are_over_all_nodes():
    asked = Resources(nodes=3, tasks_per_node=2, cpus_per_task=4, gpus_per_node=1)
    assert (asked.cpu_count, asked.gpu_count, asked.node_count) == (24, 3, 3)
    assert (Resources().cpu_count, Resources().gpu_count, Resources().node_count) == (1, 0, 1)


@pytest.mark.parametrize(
    "bad",
    [{"nodes": 0}, {"nodes": "two"}, {"partition": "a b"}, {"partition": "-x"}, {"account": 'a"b'}, {"qos": "a\nb"},
     {"constraint": "$(id)"}, {"constraint": ""}, {"memory_mib": -1}, {"memory_mib": "16X"}, {"walltime": "soon"},
     {"gpus": 4}, {"gpu_type": "é"}],
)  # fmt: skip
def test_what_no_directive_can_carry_is_refused(bad: dict[str, object]):
    with pytest.raises(ValidationError):
        Resources.model_validate(bad)


def test_a_constraint_may_have_slurms_operators():
    assert Resources(constraint="[rack1*2&rack2*4]|gpu").constraint == "[rack1*2&rack2*4]|gpu"


def test_mail_goes_to_one_address_for_known_events():
    assert Mail(address="me@example.org").events == ("END", "FAIL")
    with pytest.raises(ValidationError):
        Mail.model_validate({"address": "me@example.org", "events": ("BIRTHDAY",)})
