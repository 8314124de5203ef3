"""Checkpoints: whole or not there, whatever happens while they are written."""

import errno

import pytest

from ml_platform.families.lora.checkpoint import newest_checkpoint, verifies, write_checkpoint


def write(folder):
    (folder / "adapter.safetensors").write_bytes(b"weights")
    (folder / "course.json").write_text("{}")


def test_the_newest_checkpoint_is_found(tmp_path):
    for step in (2, 10, 4):
        write_checkpoint(tmp_path, step, write)

    assert newest_checkpoint(tmp_path).step == 10


def test_only_the_two_newest_stay(tmp_path):
    for step in (1, 2, 3, 4):
        write_checkpoint(tmp_path, step, write)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000003", "step-000000004"]


def test_nothing_to_resume_from_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "not-there") is None


@pytest.mark.parametrize("name", ["adapter.safetensors", "course.json", "manifest.json"])
def test_one_flipped_byte_sends_us_back_to_the_checkpoint_before(tmp_path, name):
    write_checkpoint(tmp_path, 1, write)
    damaged = write_checkpoint(tmp_path, 2, write).path / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)

    assert newest_checkpoint(tmp_path).step == 1
    assert not (tmp_path / "step-000000002").exists()


@pytest.mark.parametrize("name", ["adapter.safetensors", "manifest.json"])
def test_a_truncated_file_does_not_verify(tmp_path, name):
    path = write_checkpoint(tmp_path, 3, write).path
    (path / name).write_bytes((path / name).read_bytes()[:3])

    assert not verifies(path, 3)


def test_a_missing_and_an_additional_file_do_not_verify(tmp_path):
    path = write_checkpoint(tmp_path, 3, write).path
    (path / "more").write_text("x")
    assert not verifies(path, 3)
    (path / "more").unlink()
    assert verifies(path, 3)
    (path / "course.json").unlink()
    assert not verifies(path, 3)


def test_an_empty_folder_with_the_highest_number_is_no_checkpoint(tmp_path):
    write_checkpoint(tmp_path, 5, write)
    (tmp_path / "step-000000009").mkdir()

    assert newest_checkpoint(tmp_path).step == 5


def test_a_checkpoint_under_the_name_of_a_later_step_is_refused(tmp_path):
    path = write_checkpoint(tmp_path, 5, write).path
    path.rename(tmp_path / "step-000000006")

    assert newest_checkpoint(tmp_path) is None


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
    write_checkpoint(tmp_path, 5, write)
    (tmp_path / "unfinished-abc").mkdir()
    write(tmp_path / "unfinished-abc")

    assert newest_checkpoint(tmp_path).step == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    write_checkpoint(tmp_path, 5, write)

    def fail(folder):
        write(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path, 6, fail)
    assert newest_checkpoint(tmp_path).step == 5


def test_the_same_step_can_be_written_again(tmp_path):
    write_checkpoint(tmp_path, 5, write)

    assert write_checkpoint(tmp_path, 5, write).path == newest_checkpoint(tmp_path).path
