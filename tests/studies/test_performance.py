"""What is compared is one function; how it is measured; and what the tables then say.

Nothing here fails on a clock: where times matter they are made up.
"""

import io
import itertools
import json
import math
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import normal
from torch.utils.flop_counter import FlopCounterMode

from sscl_experiments import cli, notebook
from sscl_experiments.studies.performance import (
    analysis,
    contenders,
    figures,
    measuring,
    parts,
    targets,
)
from sscl_experiments.studies.performance import losses as sweep
from sscl_experiments.study import resolve

NAME = "12_performance"
CPU = torch.device("cpu")
MIB = 2**20


def smoke(**given):
    return resolve(NAME, {"scale": "smoke", "device": "cpu", **given})


@pytest.fixture(scope="module")
def tables():
    return analysis.measure(smoke())


# --- contenders ----------------------------------------------------------------------------------


def written_out(z1, z2, *, temperature=1.0, df=None, joint):
    """The formulas in loops over anchors and all others."""
    z = torch.cat([z1, z2])
    total, mean, N = 0.0, 0.0, len(z)

    def log_s(i, k):
        if df is None:
            return torch.cosine_similarity(z[i], z[k], dim=0).item() / temperature
        squared = (z[i] - z[k]).square().sum().item()
        return -(df + 1) / 2 * math.log1p(squared / (temperature * df))

    for i in range(N):
        row = sum(math.exp(log_s(i, k)) for k in range(N) if k != i)
        total += row
        mean += (0.0 if joint else math.log(row)) - log_s(i, (i + N // 2) % N)
    return mean / N + (math.log(total) if joint else 0.0)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("df", [None, 1.0, 5.0])
def test_the_direct_formula_is_the_formula(df, joint):
    z1, z2 = normal(4, 3), normal(4, 3, seed=1)
    settings = {"temperature": 0.7, "df": df, "joint": joint}
    value = contenders.direct(z1, z2, **settings).item()
    assert value == pytest.approx(written_out(z1, z2, **settings), rel=1e-12)


@pytest.mark.parametrize("name", contenders.CONTESTS)
def test_every_peer_is_here_and_computes_what_ours_does(name):
    found, missing = contenders.contenders(name)
    assert len(found) >= 2
    assert not missing
    contenders.check_agreement()


@pytest.mark.parametrize("wrong", ["value", "gradient"])
def test_contenders_that_differ_are_not_compared(monkeypatch, wrong):
    ours, others = contenders.CONTESTS["info_nce"]

    def other(z1, z2):
        loss = ours(z1, z2)
        return loss * 1.001 if wrong == "value" else loss + (z1 - z1.detach()).sum() * 1e-3

    replaced = {"info_nce": (ours, {**others, "other": lambda: other})}
    monkeypatch.setattr(contenders, "CONTESTS", replaced)
    with pytest.raises(AssertionError, match="not close"):
        contenders.check_agreement()


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    found, missing = contenders.contenders("info_nce")
    assert list(missing) == [contenders.METRIC_LEARNING]
    assert "is not installed" in missing[contenders.METRIC_LEARNING]
    assert contenders.IDIOM in found


def test_paths_of_our_losses_are_compared_where_they_can_be_chosen(monkeypatch):
    asked = []

    def ours(z1, z2, *, tile=None):
        asked.append(tile)
        return (z1 - z2).square().mean()

    monkeypatch.setitem(contenders.CONTESTS, "info_nce", (ours, {}))
    found, _ = contenders.contenders("info_nce")
    assert list(found) == [contenders.OURS, *contenders.PATHS]
    for loss in found.values():
        loss(*contenders.views_of(20, 3, seed=0))
    assert asked == [None, 0, contenders.BLOCK]


@pytest.mark.parametrize("rows", [64, 1100])
@pytest.mark.parametrize("floor", sweep.FLOORS)
def test_the_floor_is_three_products_of_the_shape(floor, rows):
    with FlopCounterMode(display=False) as counter:
        sweep.FLOORS[floor](torch.randn(rows, 8))
    assert counter.get_total_flops() == 3 * 2 * rows**2 * 8


# --- measuring -----------------------------------------------------------------------------------


def test_all_have_their_turn_in_every_round_and_another_begins(monkeypatch):
    order = []
    monkeypatch.setattr(measuring, "seconds", lambda call, device, times=1: call() or 1.0)
    calls = {name: partial(order.append, name) for name in "abc"}
    once = dict.fromkeys("abc", 1.0)
    found = measuring.interleaved(calls, CPU, repeats=4, patience=1e9, once=once)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(times) for name, times in found.items()} == dict.fromkeys("abc", 4)


@pytest.mark.parametrize(
    ("repeats", "patience", "rounds"), [(9, 1e9, 9), (9, 12.0, 6), (9, 1.0, 3), (2, 1.0, 2)]
)
def test_patience_ends_the_rounds_but_not_below_three(monkeypatch, repeats, patience, rounds):
    monkeypatch.setattr(measuring, "seconds", lambda call, device, times=1: 1.0)
    calls = dict.fromkeys("ab", lambda: None)
    found = measuring.interleaved(calls, CPU, repeats=repeats, patience=patience)
    assert len(found["a"]) == rounds


def test_a_short_call_is_made_several_times_in_its_turn():
    made = {"short": 0, "long": 0}

    def call(name):
        made[name] += 1

    calls = {name: partial(call, name) for name in made}
    once = {"short": measuring.SHORTEST / 7, "long": 5.0}
    measuring.interleaved(calls, CPU, repeats=1, patience=1e9, once=once)
    assert made == {"short": 7, "long": 1}


def test_ratios_are_taken_within_a_round():
    ours, theirs = np.array([1.0, 10.0, 2.0]), np.array([2.0, 20.0, 4.0])
    found = measuring.compared(theirs, ours)
    assert (found["ratio"], found["ratio_low"], found["ratio_high"]) == (2, 2, 2)
    assert (found["ms"], found["repeats"]) == (4000, 3)


@pytest.mark.parametrize("pieces", [1, 2048])
def test_peak_memory_is_what_is_held_at_once(pieces):
    """To the byte, also the second time, and inside an operation."""

    def call():
        size = 64 * MIB // 4 // pieces
        large = [torch.ones(size) for _ in range(pieces)]
        del large
        torch.ones(16 * MIB // 4)

    for _ in range(2):
        assert measuring.peak_bytes(call, CPU) == 64 * MIB
    assert measuring.peak_bytes(lambda: None, CPU) == 0
    x = torch.ones(MIB // 4)
    assert measuring.peak_bytes(lambda: x.logsumexp(0), CPU) > MIB / 2, "one array of its own"


class FakeEvent:
    clock = itertools.count(0, 500)  # milliseconds

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = next(self.clock)

    def elapsed_time(self, end):
        return end.time - self.time


def test_a_gpu_is_timed_between_events_and_asked_for_its_peak(monkeypatch):
    """Without one: the functions of torch.cuda are replaced."""
    said = []
    numbers = {"memory_allocated": 100, "max_memory_allocated": 350}
    for name in ("synchronize", "reset_peak_memory_stats", *numbers):
        answer = numbers.get(name)
        replaced = lambda device, name=name, answer=answer: said.append(name) or answer  # noqa: E731
        monkeypatch.setattr(torch.cuda, name, replaced)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    cuda = torch.device("cuda")
    assert measuring.seconds(lambda: said.append("call"), cuda, 2) == 0.25
    assert said == ["call", "call", "synchronize"]
    said.clear()
    assert measuring.peak_bytes(lambda: said.append("call"), cuda) == 250
    before, after = said[: said.index("call")], said[said.index("call") + 1 :]
    assert before == ["synchronize", "reset_peak_memory_stats", "memory_allocated"]
    assert after == ["synchronize", "max_memory_allocated"]


# --- the sweep -----------------------------------------------------------------------------------


def test_what_would_cost_too_much_is_not_run():
    reach = sweep.Reach(smoke(most_gib=1.0, most_seconds=10.0))
    assert reach.why_not(("a", "b"), 10**6) == "", "nothing is known of it"
    reach.last["a", "b"] = (100, 2.0**28, 1.0)
    assert reach.why_not(("a", "b"), 200) == ""
    assert reach.why_not(("a", "b"), 400) == "≈ 4 GiB"
    reach.last["a", "b"] = (100, 1.0, 3.0)
    assert reach.why_not(("a", "b"), 200) == "≈ 12 s"


def test_a_method_stops_and_the_others_go_on(monkeypatch):
    held = {contenders.DIRECT: 2.0**30}
    first_run = sweep._first_run

    def run(call, device):
        direct = isinstance(call.args[0], partial) and call.args[0].func is contenders.direct
        return (held[contenders.DIRECT], 0.1) if direct else first_run(call, device)

    monkeypatch.setattr(sweep, "_first_run", run)
    table = sweep.loss_times(smoke(rows=[16, 32], dims=[4], most_gib=2.0), CPU)
    large = table[table["rows"] == 32].set_index(["loss", "method"])
    assert large.loc[("info_nce", contenders.DIRECT), "why"] == "≈ 4 GiB"
    assert np.isnan(large.loc[("info_nce", contenders.DIRECT), "ms"])
    assert large.loc[("info_nce", contenders.IDIOM), "ms"] > 0


def test_what_is_only_a_comparison_is_not_run_alone(monkeypatch):
    first_run = sweep._first_run

    def run(call, device):
        others = contenders.contenders(contenders.T_SNE)[0]
        is_peer = getattr(call.args[0], "__qualname__", "") == others["torchdr"].__qualname__
        return (2.0**30, 0.1) if is_peer else first_run(call, device)

    monkeypatch.setattr(sweep, "_first_run", run)
    table = sweep.loss_times(smoke(rows=[16, 32], dims=[4], most_gib=2.0), CPU)
    of_t_sne = table[(table.loss == contenders.T_SNE) & (table["rows"] == 32)].set_index("method")
    assert of_t_sne.why["torchdr"] == "≈ 4 GiB"
    assert of_t_sne.why["ours"] == "without torchdr"
    assert np.isnan(of_t_sne.ms["ours"])
    assert sweep._only_beside(("info_nce", contenders.TILES)) == ("info_nce", contenders.DENSE)
    assert sweep._only_beside(("info_nce", contenders.OURS)) is None


def test_every_loss_is_measured_by_every_method(tables):
    table, p = tables["losses"], smoke()
    for name in contenders.CONTESTS:
        methods = set(table[table.loss == name].method)
        assert methods >= {*contenders.contenders(name)[0], *sweep.FLOORS}
    counts = table.groupby(["loss", "method"]).size()
    assert set(counts) == {len(p.rows) * len(p.dims) * len(p.threads)}
    ours = table[table.method == contenders.OURS]
    assert (ours.ratio == 1).all()
    assert (ours.repeats == p.seeds).all()
    assert (table[table.why == ""].ms > 0).all()
    one = table[(table.loss == "info_nce") & (table["rows"] == 64) & (table.dim == 8)]
    times = one.set_index("method").ms
    peers = times[[contenders.IDIOM, contenders.METRIC_LEARNING]]
    assert times[sweep.FASTER_PEER] <= peers.min() + 1e-12


def test_shares_of_a_losss_time_add_up(tables):
    shares = tables["spending"].drop(columns=["loss", "rows", "dim"])
    assert shares.sum(axis=1).to_numpy() == pytest.approx(1)
    assert (shares >= 0).all().all()
    assert (shares["matrix products"] > 0).all(), "something was found"


def test_a_size_that_is_too_large_for_every_method_is_left_out_and_says_so():
    table = sweep.loss_times(smoke(rows=[16, 64], dims=[4], most_seconds=1e-9), CPU)
    large = table[(table.rows == 64) & (table.method != sweep.FASTER_PEER)]
    assert large.why.str.startswith(("≈", "without")).all()
    assert large.ms.isna().all()
    assert (table[table.rows == 16].why == "").all()


def test_threads_are_set_for_the_losses_and_put_back():
    before = torch.get_num_threads()
    table = sweep.loss_times(smoke(rows=[16], dims=[4], threads=[1, 2]), CPU)
    assert set(table.threads) == {1, 2}
    assert torch.get_num_threads() == before


# --- what surrounds them -------------------------------------------------------------------------


def test_parts_are_measured_beside_their_peers(tables):
    table = tables["parts"].set_index(["part", "method"])
    expected = {
        "k-NN": (parts.PRODUCT, parts.SKLEARN, parts.FAISS),
        "perplexity matching": (parts.SKLEARN, parts.OPENTSNE),
        "SimCLR's views": (parts.KORNIA,),
        "toy ensembles": (parts.LOOP,),
    }
    for part, methods in expected.items():
        assert set(table.loc[part].index) == {contenders.OURS, *methods}
        for method in methods:
            row = table.loc[(part, method)]
            row = row.iloc[0] if isinstance(row, pd.DataFrame) else row
            assert row.ratio > 0 or row.why.endswith("is not installed")
    assert table.loc[("k-NN", parts.SKLEARN), "agrees"] == 1


def test_a_loop_over_few_seeds_is_scaled_to_all(monkeypatch):
    calls = {contenders.OURS: np.array([2.0]), parts.LOOP: np.array([1.0])}
    monkeypatch.setattr(parts, "interleaved", lambda *_, **__: calls)
    makers = {name: lambda: list for name in calls}
    how = {"units": 40, "per_call": {parts.LOOP: 8 / 64}}
    ours, loop = parts._rows(smoke(), CPU, "toys", "", makers, **how)
    assert (ours["ratio"], ours["rate"]) == (1, 20)
    assert (loop["ratio"], loop["rate"]) == (4, 5)


def test_the_parts_of_a_step_are_all_of_it(tables):
    table = tables["steps"].set_index("part")
    assert table.share["whole step"] == 1
    ready = table.share["views"] + table.share["step on ready-made views"]
    assert ready == pytest.approx(1, abs=1e-9)
    assert (table.ms > 0).all()


@pytest.mark.parametrize("network", ["conv net, 28×28", "ResNet-18, 32×32"])
def test_both_networks_take_a_step(network):
    table = analysis.step_times(smoke(networks=[network], pairs=2, seeds=1), CPU)
    assert list(table.network.unique()) == [network]
    assert table.ms.notna().all()


# --- what the tables say -------------------------------------------------------------------------


def power_law(exponent, rows=(512, 1024, 2048), method=contenders.OURS):
    base = {"loss": "info_nce", "method": method, "dim": 128, "threads": 1, "why": ""}
    sizes = pd.DataFrame({"rows": rows})
    cost = (sizes["rows"] / rows[0]) ** exponent
    ratio = {"ratio": 4.0, "ratio_low": 2.0, "ratio_high": 5.0, "memory_ratio": 3.0, "repeats": 5}
    return sizes.assign(ms=7 * cost, MiB=cost, **ratio, **base)


FOUR = (512, 1024, 2048, 4096)


def test_exponents_are_those_of_a_power_law():
    (row,) = analysis.exponents(power_law(1.5, FOUR), 512).to_dict("records")
    assert row["time exponent"] == row["memory exponent"] == "1.50 [1.50, 1.50]"
    assert row["sizes"] == "4"


def test_an_exponents_interval_is_that_of_least_squares():
    x, y = pd.Series([1.0, np.e, np.e**2, np.e**3]), pd.Series(np.exp([0.0, 1.0, 3.0, 4.0]))
    # By hand: slope 1.4, residuals .1, -.3, .3, -.1, so s² = .1, s/√5 = √.02; t(2) = 4.3027.
    half = 4.302653 * math.sqrt(0.02)
    assert analysis.slope(x, y) == pytest.approx((1.4, 1.4 - half, 1.4 + half), rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (FOUR[:1], "not from one size"),
        (FOUR[:2], "not from two sizes"),
        (FOUR[:3], "not from three sizes"),
    ],
)
def test_there_is_no_exponent_of_fewer_than_four_sizes(rows, words):
    (row,) = analysis.exponents(power_law(2, rows), 512).to_dict("records")
    assert row["time exponent"] == row["memory exponent"] == words
    assert np.isnan(analysis.slope(pd.Series(rows), pd.Series(rows))).all()


def test_sizes_that_were_not_run_enter_no_exponent():
    table = power_law(2, FOUR)
    table.loc[3, ["ms", "MiB"]] = np.nan
    (row,) = analysis.exponents(table, 512).to_dict("records")
    assert row["time exponent"] == "not from three sizes"


def test_the_answer_is_ours_over_the_floor_at_the_largest_batch():
    table = pd.concat(
        [power_law(2, method=contenders.FLOOR), power_law(2, method=contenders.IDIOM)]
    )
    text = analysis.answer(table)
    assert "2n = 2,048, d = 128 takes 0.25 times as long" in text
    assert "(quartiles 0.20 to 0.50, 5 rounds)" in text
    assert "the ten-line form takes 4 times as long as ours and 3 times as much memory" in text


def test_shares_of_what_the_machine_can_do():
    can = pd.DataFrame([{"threads": 1, "GFLOP/s": 100.0, "GB/s": 10.0}])
    table = power_law(2, rows=(1000,)).assign(ms=1e3 * 6 * 128 * 1e6 / 50e9)
    (row,) = analysis.absolute({"losses": table, "machine": can}).to_dict("records")
    assert row["matrix rate"] == pytest.approx(0.5), "three products at half the rate"
    seconds = 6 * 128 * 1e6 / 50e9
    assert row["bandwidth"] == pytest.approx(16e6 / seconds / 10e9)


# --- targets -------------------------------------------------------------------------------------


def test_every_target_is_about_something_that_is_measured(tables):
    """Only sizes of a batch and of other parts may be missing at scale smoke."""
    sizes = {"rows", "dim", "size", "pairs"}
    for target in targets.TARGETS:
        table = tables[target.table]
        assert target.column in table
        assert set(target.where) <= set(table)
        named = {name: value for name, value in target.where.items() if name not in sizes}
        found = table
        for name, value in named.items():
            found = found[found[name] == value]
        assert len(found), target.what


TARGET = targets.Target("", "losses", {"rows": (1024,)}, "ratio", "at least", 3.0)


def found(target, **columns):
    return targets.reached(target, {"losses": power_law(1).assign(**columns)})


def test_a_target_is_judged_by_its_worst_case():
    worst = found(TARGET, ratio=[1.0, 3.5, 5.0], ratio_low=3.0, ratio_high=6.0)
    assert (worst.value, worst.row["rows"]) == (3.5, 1024), "2n = 512 is none of its cases"
    assert targets.is_met(TARGET, worst)
    assert worst.text == "3.5 [3, 6]"
    assert not targets.is_met(TARGET, found(TARGET, ratio=[9.0, 9.0, 2.9]))


def test_an_inverse_target_is_about_ours_over_theirs():
    target = targets.Target("", "losses", {}, "ratio", "at most", 0.5, inverse=True)
    worst = found(target, ratio=[4.0, 2.0, 5.0], ratio_low=1.0, ratio_high=8.0)
    assert (worst.value, worst.low, worst.high) == (0.5, 0.125, 1.0)
    assert targets.is_met(target, worst)
    assert not targets.is_met(target, found(target, ratio=[4.0, 1.9, 5.0]))


@pytest.mark.parametrize("where", [{"rows": 8192}, {"rows": (4096,)}])
def test_what_was_not_run_is_neither_met_nor_missed(where):
    target = targets.Target("", "losses", where, "ratio", "at least", 3.0)
    assert targets.reached(target, {"losses": power_law(1)}).text == targets.NOT_RUN
    assert found(TARGET, ratio=np.nan).text == targets.NOT_RUN


def test_the_table_of_targets_has_a_verdict_for_each(tables):
    table = targets.target_table(tables)
    assert table.what.tolist() == [target.what for target in targets.TARGETS]
    large = table.what.str.contains("65,536")
    assert set(table.met[large]) == {targets.NOT_RUN}
    assert set(table.met[~large]) <= {"yes", "no", targets.NOT_RUN}
    matching = table[table.what == "perplexity matching: faster than scikit-learn"]
    assert set(matching.met) <= {"yes", "no"}, "it is measured at any size"


# --- records and the command ---------------------------------------------------------------------


def test_no_training_run_belongs_to_it():
    assert smoke().runs() == []


def test_figures_are_drawn(tables):
    losses = tables["losses"]
    assert len(figures.scaling(analysis.shown(losses)).axes) == 6
    assert len(figures.over_the_floor(losses).axes) == 3
    assert len(figures.steps(tables["steps"]).axes) == 1


def test_the_command_leaves_a_record_that_the_notebook_reads(tmp_path, monkeypatch, capsys):
    small = {"rows": "[16, 32]", "dims": "[4]", "pairs": "4", "ensemble": "2"}
    options = [word for pair in small.items() for word in ("-p", *pair)]
    path = tmp_path / "full" / f"{NAME}.json"
    where = ["--scale", "smoke", "--device", "cpu", "--out", str(path)]
    assert cli.main(["bench", *where, *options]) == 0
    said = capsys.readouterr().out
    for title in ("Targets", "Exponents of 2n", "Machine"):
        assert f"\n{title}\n" in said
    assert json.loads(path.read_text(encoding="utf-8"))["parameters"]["rows"] == [16, 32]
    monkeypatch.setattr(notebook, "RECORDS", tmp_path)
    given = {"__name__": "__main__", "scale": "smoke", "results_dir": str(tmp_path)}
    notebook._begun.clear()
    record = notebook.begin(NAME, given).record("full")
    assert "0 runs" in capsys.readouterr().out
    read = analysis.largest({}, record)
    assert set(read["losses"]["rows"]) == {16, 32}
    assert len(analysis.ratios(read["losses"])) > 10
    assert len(targets.target_table(read)) == len(targets.TARGETS)


def test_tables_are_kept_under_the_names_that_records_have(tmp_path):
    analysis.keep({"losses": power_law(1)}, tmp_path, NAME)
    read = pd.read_csv(io.StringIO((tmp_path / f"{NAME}-losses.csv").read_text(encoding="utf-8")))
    assert read["rows"].tolist() == [512, 1024, 2048]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("rows", "[15]"), "rows.0 = 15"),
        (("speed", "1"), "speed"),
        (("networks", '["VGG"]'), "networks.0 = 'VGG'"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(given, words, capsys):
    assert cli.main(["bench", "--scale", "smoke", "-p", *given]) == 1
    assert words in capsys.readouterr().err
