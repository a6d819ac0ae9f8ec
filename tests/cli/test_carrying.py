"""`polos export`, `polos import` and `polos db rekey`."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from polos.codecs import EncryptionCodec, generate_key
from tests.cli.conftest import Polos, Seeded


def test_an_export_is_shown_without_a_store(polos: Polos, seeded: Seeded, tmp_path: Path) -> None:
    file = tmp_path / "run.polos"
    answer = polos("export", seeded.ids["failed"], "-o", str(file), url=seeded.url)
    assert answer.code == 0
    assert str(file) in answer.out
    before = sorted(os.listdir(tmp_path))
    shown = polos("import", str(file), "--show", "--json", url=f"sqlite:///{tmp_path}/none.db")
    assert shown.code == 0
    assert shown.document["id"] == seeded.ids["failed"]
    there = polos("show", seeded.ids["failed"], "--no-follow", "--json", url=seeded.url).document
    assert shown.document["state"] == there["state"]
    assert shown.document["steps"] == there["steps"]
    assert shown.document["status"] == there["status"] == "failed"
    assert sorted(os.listdir(tmp_path)) == before


def test_an_import_makes_the_store_and_says_what_is_new(
    polos: Polos, seeded: Seeded, tmp_path: Path
) -> None:
    file, url = tmp_path / "run.polos", f"sqlite:///{tmp_path}/new/polos.db"
    polos("export", seeded.ids["completed"], "-o", str(file), url=seeded.url)
    first = polos("import", str(file), "--json", url=url)
    assert first.code == 0
    assert first.document["id"] == seeded.ids["completed"]
    again = polos("import", str(file), url=url)
    assert again.code == 0
    assert "ids were taken" in again.err
    assert len(polos("list", "--json", url=url).document) == 2


def test_an_export_replaces_no_file_unless_told(
    polos: Polos, seeded: Seeded, tmp_path: Path
) -> None:
    file = tmp_path / "run.polos"
    file.write_text("mine")
    assert polos("export", seeded.ids["completed"], "-o", str(file), url=seeded.url).code == 2
    assert file.read_text() == "mine"
    forced = polos("export", seeded.ids["completed"], "-o", str(file), "--force", url=seeded.url)
    assert forced.code == 0


def test_a_damaged_file_is_refused(polos: Polos, seeded: Seeded, tmp_path: Path) -> None:
    file = tmp_path / "run.polos"
    file.write_text("no zip")
    answer = polos("import", str(file), url=seeded.url)
    assert answer.code == 2
    assert "it is not a zip file" in answer.err
    assert polos("import", str(file), "--show", "--continue").code == 2


def test_rekey_encrypts_what_is_there(
    polos: Polos, seeded: Seeded, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert polos("db", "rekey", url=seeded.url).code == 2
    one, two = generate_key(), generate_key()
    monkeypatch.setenv("POLOS_ENCRYPTION_KEYS", one)
    assert polos("db", "rekey", "--json", url=seeded.url).document["values"] > 5
    monkeypatch.setenv("POLOS_ENCRYPTION_KEYS", f"{two},{one}")
    assert polos("db", "rekey", "--json", url=seeded.url).document["values"] > 5
    assert polos("db", "rekey", "--json", url=seeded.url).document["values"] == 0
    monkeypatch.setenv("POLOS_ENCRYPTION_KEYS", two)
    shown = polos("show", seeded.ids["completed"], "--no-follow", "--json", url=seeded.url).document
    assert shown["result"] == {"n": shown["payload"]["n"]}
    monkeypatch.delenv("POLOS_ENCRYPTION_KEYS")
    masked = polos("show", seeded.ids["completed"], "--no-follow", "--json", url=seeded.url)
    assert masked.code == 0
    assert masked.document["result"] == "<encrypted>"
    for text in [row[0] for row in sqlite3.connect(seeded.path).execute("SELECT body FROM state")]:
        assert json.loads(text)
        assert "$sealed" in text
    assert EncryptionCodec(two).key_ids
