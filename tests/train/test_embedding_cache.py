"""The embedding cache: what was computed once is found again, whatever ended the run that computed it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_models

from edgewren.archive.disk import Disk
from edgewren_train import embedding, embedding_cache
from edgewren_train.embedding import count_cached, embed
from edgewren_train.encoders import load_encoder

DATA = tiny_models.labelled(*tiny_models.toy_texts(40))
FEW_TOKENS = 48  # so that 40 texts are many batches


def counting(monkeypatch):
    """Return a list that gets the number of token rows of each batch that is computed."""
    computed = []
    real = embedding.sentence_embedding

    def counted(modules, ids, mask):
        computed.append(len(np.unique(ids.numpy(), axis=0)))
        return real(modules, ids, mask)

    monkeypatch.setattr(embedding, "sentence_embedding", counted)
    return computed


def pieces(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


def test_embeddings_come_from_the_cache_the_second_time(tmp_path, sentence_folder, monkeypatch):
    encoder = load_encoder(str(sentence_folder("bert")))
    counted = []
    first = embed(encoder, DATA.texts, cache=tmp_path, progress=counted.append)
    assert sum(counted) == len(DATA.texts)
    monkeypatch.setattr("edgewren_train.embedding.sentence_embedding", None)  # computing anew would fail
    assert (embed(encoder, DATA.texts, cache=tmp_path) == first).all()


@pytest.mark.parametrize("change", ["texts", "encoder", "settings", "normaliser", "max_length"])
def test_cache_is_keyed_by_everything_that_changes_an_embedding(tmp_path, sentence_folder, change):
    folder = str(sentence_folder("bert"))
    embed(load_encoder(folder), DATA.texts, cache=tmp_path)
    texts, options = DATA.texts, {}
    if change == "texts":
        texts = [*DATA.texts[:-1], "another ferry"]
    elif change == "encoder":
        folder = str(sentence_folder("bert", seed=9))
    elif change == "settings":
        folder = str(shutil.copytree(folder, tmp_path.with_suffix(".settings")))
        config = json.loads((Path(folder) / "config.json").read_text())
        (Path(folder) / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 0.1}))
    else:
        options = {"normaliser": "http"} if change == "normaliser" else {"max_length": 7}
    embed(load_encoder(folder, **options), texts, cache=tmp_path)
    assert len([entry for entry in tmp_path.rglob("*") if entry.is_file()]) == 2


def test_encoder_that_is_saved_again_is_found_in_the_cache_but_on_its_own_device(tmp_path, sentence_folder):
    encoder = load_encoder(str(sentence_folder("bert")))
    embed(encoder, DATA.texts, cache=tmp_path / "cache")
    encoder.model.save(str(tmp_path / "again"), create_model_card=False)
    again = load_encoder(str(tmp_path / "again"))
    assert count_cached(again, DATA.texts, tmp_path / "cache") == len(DATA.texts)
    assert count_cached(again, DATA.texts, tmp_path / "cache", device="cuda") == 0


def test_damaged_cache_entry_is_computed_anew(tmp_path, sentence_folder):
    encoder = load_encoder(str(sentence_folder("bert")))
    first = embed(encoder, DATA.texts, cache=tmp_path)
    (entry,) = [file for file in tmp_path.rglob("*") if file.is_file()]
    entry.write_bytes(entry.read_bytes()[:-20])
    assert (embed(encoder, DATA.texts, cache=tmp_path) == first).all()


def test_cache_that_cannot_be_written_does_no_harm(tmp_path, sentence_folder, caplog):
    (tmp_path / "file").write_text("")
    encoder = load_encoder(str(sentence_folder("bert")))
    kept = embed(encoder, DATA.texts, cache=tmp_path / "file" / "cache")
    assert (kept == embed(encoder, DATA.texts)).all()
    assert "cannot be written" in caplog.text


@pytest.mark.parametrize("ending", [KeyboardInterrupt, RuntimeError])
def test_interrupted_run_keeps_what_it_has_finished(tmp_path, sentence_folder, monkeypatch, ending):
    monkeypatch.setattr(embedding, "TORCH_TOKENS_PER_BATCH", FEW_TOKENS)
    encoder = load_encoder(str(sentence_folder("bert")))
    undisturbed = embed(encoder, DATA.texts)
    done = []

    def interrupt(count):
        done.append(count)
        if sum(done) >= 15:
            raise ending

    with pytest.raises(ending):
        embed(encoder, DATA.texts, cache=tmp_path, progress=interrupt)
    assert count_cached(encoder, DATA.texts, tmp_path) == sum(done[:-1]), "all batches but the one in the air"
    computed, told = counting(monkeypatch), []
    again = embed(encoder, DATA.texts, cache=tmp_path, progress=told.append)
    np.testing.assert_array_equal(again, undisturbed)
    assert sum(computed) == len(DATA.texts) - sum(done[:-1])
    assert sum(told) == len(DATA.texts)


def test_killed_run_keeps_all_pieces_that_it_has_written(tmp_path, sentence_folder):
    code = """
import os, sys
from edgewren_train import embedding, embedding_cache
from edgewren_train.encoders import load_encoder
embedding.TORCH_TOKENS_PER_BATCH, embedding_cache.SECONDS_PER_PIECE = 48, 0.0
done = []
def kill(count):
    done.append(count)
    if sum(done) >= 15:
        os.kill(os.getpid(), 9)
folder, cache, *texts = sys.argv[1:]
embedding.embed(load_encoder(folder), texts, cache=embedding.Path(cache), progress=kill)
"""
    folder = str(sentence_folder("bert"))
    killed = subprocess.run([sys.executable, "-c", code, folder, str(tmp_path), *DATA.texts], check=False)
    assert killed.returncode == -9
    encoder = load_encoder(folder)
    assert 5 <= count_cached(encoder, DATA.texts, tmp_path) < len(DATA.texts)
    np.testing.assert_array_equal(embed(encoder, DATA.texts, cache=tmp_path), embed(encoder, DATA.texts))


def test_of_a_longer_file_only_new_texts_are_embedded(tmp_path, sentence_folder, monkeypatch):
    encoder = load_encoder(str(sentence_folder("bert")))
    embed(encoder, DATA.texts[:30], cache=tmp_path)
    anew = embed(encoder, DATA.texts)
    computed = counting(monkeypatch)
    longer = embed(encoder, [*reversed(DATA.texts), DATA.texts[0]], cache=tmp_path)
    assert sum(computed) == 10
    np.testing.assert_allclose(longer, anew[[*reversed(range(40)), 0]], atol=1e-6)  # batches have other shapes


def test_embedding_has_the_same_bits_alone_and_beside_others(sentence_folder):
    """MKL multiplies a few rows in another way than many; lone texts of few tokens are such rows."""
    import torch

    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("only tried on processors with AVX512")
    encoder = load_encoder(str(sentence_folder("bert")))
    texts = ["a", "the ferry", *DATA.texts, *(f"the {word}" for word in tiny_models.WORDS)]
    together = embed(encoder, texts)
    alone = np.concatenate([embed(encoder, [text]) for text in texts])
    np.testing.assert_array_equal(alone, together)


def test_runs_at_once_do_each_other_no_harm(tmp_path, sentence_folder, monkeypatch):
    monkeypatch.setattr(embedding, "TORCH_TOKENS_PER_BATCH", FEW_TOKENS)
    monkeypatch.setattr(embedding_cache, "SECONDS_PER_PIECE", 0.0)
    encoder = load_encoder(str(sentence_folder("bert")))
    expected = embed(encoder, DATA.texts)
    others = []

    def another(_):
        if not others:
            others.append(embed(encoder, DATA.texts, cache=tmp_path))

    first = embed(encoder, DATA.texts, cache=tmp_path, progress=another)
    for each in (first, others[0], embed(encoder, DATA.texts, cache=tmp_path)):
        np.testing.assert_array_equal(each, expected)


def test_full_disk_is_told_once_and_does_no_harm(tmp_path, sentence_folder, monkeypatch, caplog):
    monkeypatch.setattr(embedding, "TORCH_TOKENS_PER_BATCH", FEW_TOKENS)
    monkeypatch.setattr(embedding_cache, "SECONDS_PER_PIECE", 0.0)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    encoder = load_encoder(str(sentence_folder("bert")))
    monkeypatch.setattr(Disk, "fsync", full)
    kept = embed(encoder, DATA.texts, cache=tmp_path)
    np.testing.assert_array_equal(kept, embed(encoder, DATA.texts))
    assert caplog.text.count("cannot be written") == 1
    assert "No space left on device" in caplog.text
    assert pieces(tmp_path) == []


def test_damaged_piece_is_told_and_replaced(tmp_path, sentence_folder, caplog):
    encoder = load_encoder(str(sentence_folder("bert")))
    first = embed(encoder, DATA.texts, cache=tmp_path)
    (piece,) = pieces(tmp_path)
    piece.write_bytes(b"")
    np.testing.assert_array_equal(embed(encoder, DATA.texts, cache=tmp_path), first)
    assert "damaged" in caplog.text
    assert piece not in pieces(tmp_path)
    assert count_cached(encoder, DATA.texts, tmp_path) == len(DATA.texts)
