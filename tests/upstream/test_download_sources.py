"""`vpt-data download` as a user types it: terms, places, lock file, files put there by hand, archives, kills."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.fetching import FILE, ROWS, SHA, Desk, zip_of
from helpers.hostile_server import Reply

from vpt_data.cli.main import main
from vpt_data.upstream.catalog import upstreams
from vpt_data.upstream.download import entries, lockfile

ROOT = Path(__file__).resolve().parents[2]
NOTE = f"Note: mine/rows.jsonl: sha256 {SHA} recorded on first use, not checked against a published checksum.\n"


# Terms -----------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_before_the_terms_are_accepted(desk: Desk) -> None:
    assert desk.fails(accept=False, code=2) == (
        "mine is under CC0-1.0, see https://mine.example/terms; read it, and say so with --accept-license mine."
    )
    assert desk.asked() == 0
    assert not desk.raw.exists()


def test_an_acceptance_is_written_down_and_holds(desk: Desk) -> None:
    desk.works()
    assert lockfile.accepted(desk.raw) == [
        lockfile.Accepted("mine", "CC0-1.0", "https://mine.example/terms", lockfile.today()),
    ]
    assert desk.works(accept=False)["state"] == "there"


def test_other_terms_have_to_be_accepted_anew(desk: Desk) -> None:
    desk.works()
    desk.write(FILE, license_="CC-BY-NC-4.0")
    assert desk.fails(accept=False, code=2).startswith("mine is under CC-BY-NC-4.0, see ")
    desk.works()
    assert [each.license for each in lockfile.accepted(desk.raw)] == ["CC-BY-NC-4.0"]
    desk.manifest.write_text(desk.manifest.read_text().replace("/terms", "/new-terms"))
    assert "see https://mine.example/new-terms; read it" in desk.fails(accept=False, code=2)


def test_only_what_is_downloaded_can_be_accepted(desk: Desk) -> None:
    assert desk.fails("--accept-license", "pope", code=2) == (
        "--accept-license pope: not among the sources to download; name it there as well."
    )


# One file --------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_to_its_place_and_recorded_on_first_use(desk: Desk) -> None:
    done = desk.run()
    assert (done.exit_code, done.stderr) == (0, NOTE)
    assert "mine/rows.jsonl  fetched" in done.stdout
    assert (desk.raw / "mine/rows.jsonl").read_bytes() == ROWS
    assert desk.files() == {"mine/rows.jsonl"}
    recorded = desk.lock()["files"]["mine/rows.jsonl"]
    url = f"{desk.server.url}{desk.base}rows.jsonl"
    expected = {"url": url, "size": len(ROWS), "sha256": SHA, "etag": '"one"', "checked": "first use"}
    assert recorded | expected == recorded
    assert recorded["date"] == lockfile.today()


def test_what_is_there_and_right_is_not_fetched_again(desk: Desk) -> None:
    desk.works()
    again = desk.run()
    assert (again.exit_code, again.stderr, desk.asked()) == (0, "", 1)
    assert desk.works()["state"] == "there"


def test_a_published_checksum_is_checked_and_said(desk: Desk) -> None:
    desk.write(f'{{ path = "mine/rows.jsonl", name = "rows.jsonl", size = {len(ROWS)}, sha256 = "{SHA}" }}')
    done = desk.run("--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["sources"]["mine"] == {
        "license": "CC0-1.0",
        "page": "https://mine.example/terms",
        "accepted": True,
        "files": [
            {
                "path": "mine/rows.jsonl", "state": "fetched", "size": len(ROWS), "sha256": SHA,
                "checked": "manifest", "note": "",
            }
        ],
    }  # fmt: skip


def test_a_file_that_was_there_before_us_is_checked_and_recorded(desk: Desk) -> None:
    (desk.raw / "mine").mkdir(parents=True)
    (desk.raw / "mine/rows.jsonl").write_bytes(ROWS)
    done = desk.run()
    assert (done.exit_code, done.stderr, desk.asked()) == (0, NOTE, 0)


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (f"size = {len(ROWS) + 1}", f"has {len(ROWS):,} bytes, the manifest says {len(ROWS) + 1:,}"),
        (f'sha256 = "{"0" * 64}"', f"has sha256 {SHA}, the manifest says {'0' * 64}"),
    ],
)
def test_a_wrong_file_that_was_there_before_us_is_left_alone(desk: Desk, known: str, said: str) -> None:
    (desk.raw / "mine").mkdir(parents=True)
    (desk.raw / "mine/rows.jsonl").write_bytes(ROWS)
    desk.write(f'{{ path = "mine/rows.jsonl", name = "rows.jsonl", {known} }}')
    where = desk.raw / "mine/rows.jsonl"
    assert desk.fails() == f"{where}: {said}; move it away and run the same command again."
    assert where.read_bytes() == ROWS


def test_a_touched_file_is_hashed_again_and_a_changed_one_is_told(desk: Desk) -> None:
    desk.works()
    file = desk.raw / "mine/rows.jsonl"
    os.utime(file, (1, 1))
    assert desk.works()["state"] == "there"
    assert desk.lock()["files"]["mine/rows.jsonl"]["mtime_ns"] == 1_000_000_000
    changed = ROWS.replace(b"row", b"col")
    file.write_bytes(changed)
    now = hashlib.sha256(changed).hexdigest()
    expected = (
        f"{file}: has sha256 {now}, on {lockfile.today()} it had {SHA}; move it away and run the same command again."
    )
    assert desk.fails() == expected
    assert desk.fails("--verify") == expected


def test_an_owner_who_changes_a_file_is_told_and_can_be_believed(desk: Desk) -> None:
    desk.works()
    (desk.raw / "mine/rows.jsonl").unlink()
    changed = ROWS.replace(b"row", b"col")
    desk.serve(Reply(changed, etag='"two"'))
    now = hashlib.sha256(changed).hexdigest()
    assert desk.fails() == (
        f"mine/rows.jsonl: is another file (sha256 {now}) than the one recorded on {lockfile.today()} ({SHA}); it is "
        "in rows.jsonl.part there, and to accept it remove the entry from .vpt-data/downloads.json."
    )
    assert desk.files() == {"mine/rows.jsonl.part", "mine/rows.jsonl.part.json"}
    lock = desk.lock()
    del lock["files"]["mine/rows.jsonl"]
    (desk.raw / ".vpt-data/downloads.json").write_text(json.dumps(lock))
    assert desk.works()["sha256"] == now
    assert (desk.asked(), desk.files()) == (2, {"mine/rows.jsonl"})


def test_a_file_that_lies_in_another_of_its_places_is_enough(desk: Desk) -> None:
    desk.write('{ path = "pope/coco/coco_pope_random.json", name = "rows.jsonl" }')
    (desk.raw / "pope/output/coco").mkdir(parents=True)
    (desk.raw / "pope/output/coco/coco_pope_random.json.gz").write_bytes(b"")
    done = desk.works()
    assert (done["state"], done["note"]) == ("elsewhere", "pope/output/coco/coco_pope_random.json.gz")
    assert desk.asked() == 0


# --verify and --dry-run ------------------------------------------------------------------------------------


def test_verify_hashes_and_fetches_nothing(desk: Desk) -> None:
    assert desk.works("--verify", accept=False)["state"] == "to fetch"
    desk.works()
    assert desk.works("--verify", accept=False) | {"state": "same", "sha256": SHA} == desk.works("--verify")
    (desk.raw / "mine/rows.jsonl").unlink()
    where = desk.raw / "mine/rows.jsonl"
    assert desk.fails("--verify") == f"{where}: was recorded and is no longer there (1 such); download it again."
    assert desk.asked() == 1


def test_a_dry_run_lists_and_touches_nothing(desk: Desk) -> None:
    desk.write('{ path = "mine/rows.jsonl", name = "rows.jsonl", size = 12345 }')
    done = desk.run("--dry-run", accept=False)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "licence: CC0-1.0, https://mine.example/terms" in done.stdout
    assert "mine/rows.jsonl  to fetch  12,345" in done.stdout
    assert (desk.asked(), desk.raw.exists()) == (0, False)


def test_a_dry_run_without_sources_lists_all(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["download", "--dry-run", "--json", "--raw", str(tmp_path / "raw")])
    assert set(json.loads(done.stdout)["sources"]) == set(upstreams().download)


def error(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["download", *arguments])
    assert done.exit_code == 2, done.output
    return done.stderr


def test_the_command_line_is_checked(tmp_path: Path) -> None:
    assert error().startswith("Error: Name what to download; known: viscot, viscot_images, ")
    assert error("pop") == "Error: Unknown download 'pop'; did you mean pope?\n"
    for raw in ("s3://bucket/raw", "sample"):
        assert error("pope", "--raw", raw) == (
            f"Error: --raw {raw}: download writes to a folder on a disk; give --raw DIR.\n"
        )
    (tmp_path / "file").write_text("")
    assert "the raw root is a file; expected a folder, or the name of one to make." in error(
        "pope", "--raw", str(tmp_path / "file")
    )


def test_two_downloads_into_one_root_are_kept_apart(desk: Desk) -> None:
    desk.works()
    with (desk.raw / ".vpt-data/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert desk.fails() == f"{desk.raw}: another download is at work in this raw root; wait for it."


def test_a_damaged_lock_file_is_named(desk: Desk) -> None:
    desk.works()
    path = desk.raw / ".vpt-data/downloads.json"
    path.write_text('{"version": 2}')
    assert desk.fails().startswith(f"{path}: cannot be read (Invalid enum value 2")


# Manifests -------------------------------------------------------------------------------------------------

TRICKS = [
    "/etc/passwd", "../evil", "a/../../evil", "a//b", "./a", "a/.", "", "a\\\\b", "C:/evil", "a\\u0000b", "a\\nb",
    ".vpt-data/downloads.json",
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
@pytest.mark.parametrize("key", ["path", "unpack", "instead"])
def test_no_path_of_a_manifest_leaves_the_raw_root(desk: Desk, path: str, key: str) -> None:
    if key == "unpack" and not path:
        return  # "" is how not to unpack
    value = f'["{path}"]' if key == "instead" else f'"{path}"'
    rest = "" if key == "path" else 'path = "x.zip", '
    desk.write(f'{{ {rest}{key} = {value}, name = "rows.jsonl" }}')
    assert desk.fails(code=2).endswith("is not a plain path below the raw root; write folder/name.")
    assert desk.asked() == 0


@pytest.mark.parametrize("link", ["raw/mine", "raw/mine/deep"])
def test_a_link_out_of_the_raw_root_is_not_followed(desk: Desk, tmp_path: Path, link: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / link).parent.mkdir(parents=True)
    (tmp_path / link).symlink_to(tmp_path / "outside")
    desk.write('{ path = "mine/deep/er/rows.jsonl", name = "rows.jsonl" }')
    assert "a link on the way leads out of the raw root; download writes nothing there." in desk.fails()
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize(
    ("top", "file", "said"),
    [
        ("", FILE, "download mine needs exactly one of base, hub and manual."),
        ('base = "https://a.example/"\nhub = "a/b"', FILE, "download mine needs exactly one of base, hub and manual."),
        ('base = "http://a.example/"', FILE, "http://a.example/rows.jsonl: plain http can be tampered with"),
        ('hub = "a/b"\nrevision = "main"', FILE, "has revision 'main'; expected the 40 hex digits of a commit"),
        ('hub = "a/b"', '{ path = "x", name = "../y" }', "'../y' is not a plain path below the raw root"),
        ('hub = "a/b"', '{ path = "x" }', "download mine: x needs a name to be fetched by."),
        ('hub = "a/b"', '{ path = "x", name = "y", sha256 = "12" }', "sha256 '12' of x is not 64 hex digits."),
        ('hub = "a/b"', '{ path = "x", nome = "y" }', "Object contains unknown field `nome`"),
        ('hub = "a/b"\nmirror = "c"', FILE, "Object contains unknown field `mirror`"),
        ('hub = ', FILE, "Invalid value (at line 5, column 7); see docs/download.md for what a manifest may hold."),
    ],
)  # fmt: skip
def test_a_manifest_is_read_strictly(desk: Desk, top: str, file: str, said: str) -> None:
    desk.write(file, top=top)
    assert said in desk.fails(code=2)


def test_a_manifest_needs_a_licence_and_has_to_be_there(desk: Desk) -> None:
    desk.write(FILE, license_="")
    assert desk.fails(code=2).endswith("has no licence; write license = an SPDX identifier or LicenseRef-...")
    desk.manifest.unlink()
    assert desk.fails(code=2) == f"{desk.manifest}: cannot be read (No such file or directory); give a TOML file."


def test_the_shipped_manifest_goes_where_builds_look() -> None:
    """Every entry is sound; rows go to a place of the source, images beside a folder of images."""
    known = upstreams()
    places = {
        place
        for source in known.source.values()
        for dataset in source.dataset.values()
        for listed in dataset.places.values()
        for place in listed
    }
    folders = {place for name, images in known.images.items() for place in (name, *images.places)} | places
    groups = entries.groups(())
    assert len({wanted.path for group in groups for wanted in group.files}) == sum(len(g.files) for g in groups)
    for group in groups:
        assert group.page.startswith("https://") and group.license
        for wanted in group.files:
            assert not wanted.hub or wanted.url.startswith("https://huggingface.co/datasets/")
            if wanted.path not in places and group.name != "dude_documents":
                assert wanted.others or wanted.unpack, wanted.path
                beside = {*wanted.others, *([wanted.unpack] if wanted.unpack else [])}
                assert any(folder.startswith(f"{there}/") for folder in folders for there in beside), wanted.path
    with_downloads = {name for name in known.source if name in known.download}
    assert set(known.source) == with_downloads


# By hand ---------------------------------------------------------------------------------------------------


def test_what_needs_a_form_is_explained_then_checked_then_unpacked(desk: Desk, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", ("images/1.jpg", b"picture"), ("readme.txt", b"hello"))
    sha = hashlib.sha256(archive.read_bytes()).hexdigest()
    desk.write(
        f'{{ path = "mine/x.zip", sha256 = "{sha}", unpack = "mine", instead = ["mine/other"] }}',
        top='manual = "https://mine.example/form"',
    )
    place = desk.raw / "mine/x.zip"
    assert desk.fails() == (
        f"mine has to be fetched by hand: see https://mine.example/form, put the files at {place}, and run the "
        "same command again to have them checked."
    )
    place.write_bytes(b"<html>Your session has expired")
    assert desk.fails() == (
        f"{place}: is a web page (it begins with <) instead of the file; move it away and run the same command again."
    )
    place.write_bytes(archive.read_bytes())
    assert (desk.works()["state"], desk.files()) == ("there", {"mine/x.zip", "mine/images/1.jpg", "mine/readme.txt"})
    (desk.raw / "mine/images/1.jpg").write_bytes(b"touched by its owner")
    place.unlink()
    done = desk.works()
    assert (done["state"], done["note"]) == ("unpacked", "mine/images")
    assert desk.works("--verify")["state"] == "unpacked"


def test_what_was_unpacked_by_hand_is_not_fetched(desk: Desk) -> None:
    desk.write('{ path = "mine/x.zip", name = "x.zip", instead = ["mine/images"] }')
    (desk.raw / "mine/images").mkdir(parents=True)
    assert desk.works()["state"] == "elsewhere"
    assert desk.asked("x.zip") == 0


# Archives --------------------------------------------------------------------------------------------------


def test_an_archive_is_unpacked_once(desk: Desk, tmp_path: Path) -> None:
    desk.serve(zip_of(tmp_path / "x.zip", ("a/1", b"1"), ("b", b"2")).read_bytes(), name="x.zip")
    desk.write('{ path = "mine/x.zip", name = "x.zip", unpack = "mine/tree" }')
    done = desk.run()
    assert done.exit_code == 0
    assert "Note: mine/x.zip: unpacked to mine/tree/a, mine/tree/b.\n" in done.stderr
    assert desk.files() == {"mine/x.zip", "mine/tree/a/1", "mine/tree/b"}
    assert desk.lock()["files"]["mine/x.zip"]["unpacked"] == ["mine/tree/a", "mine/tree/b"]
    assert "unpacked" not in desk.run().stderr
    (desk.raw / "mine/x.zip").unlink()
    (desk.raw / "mine/tree/b").unlink()  # as a run that was killed between two moves leaves it
    assert "unpacked to" in desk.run().stderr
    assert desk.asked("x.zip") == 2
    assert desk.files() == {"mine/x.zip", "mine/tree/a/1", "mine/tree/b"}


def test_an_evil_archive_stays_packed_and_what_is_there_stays(desk: Desk, tmp_path: Path) -> None:
    desk.write('{ path = "mine/x.zip", name = "x.zip", unpack = "mine" }')
    desk.serve(zip_of(tmp_path / "x.zip", ("../../evil", b"")).read_bytes(), name="x.zip")
    assert desk.fails().startswith("mine/x.zip: member '../../evil' would not be inside its folder; the archive is")
    assert desk.files() == {"mine/x.zip"}
    (desk.raw / "mine/x.zip").unlink()
    (desk.raw / ".vpt-data/downloads.json").unlink()
    (desk.raw / "mine/mine").write_text("precious")
    desk.serve(Reply(zip_of(tmp_path / "y.zip", ("mine", b"")).read_bytes(), etag='"two"'), name="x.zip")
    assert desk.fails() == f"{desk.raw / 'mine/mine'}: is there already; move it away to have mine/x.zip unpacked."
    assert (desk.raw / "mine/mine").read_text() == "precious"
