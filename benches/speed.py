"""Reads the results of benches/speed.

connects N      seconds that N connects to a listener take that only accepts and closes, on one core
stalls SECONDS  in which of them cores 0 and 1 stand still though nobody else wants them: a line of JSON
table DIR       the table of goals
"""

import gc
import glob
import json
import multiprocessing
import os
import socket
import statistics
import sys
import threading
import time


def load(path):
    with open(path) as file:
        return json.load(file)


def runs(folder, name):
    """The results of a row: one, or one of each time."""
    paths = glob.glob(f"{folder}/{name}.json") + sorted(glob.glob(f"{folder}/{name}.[0-9]*.json"))
    return [load(path) for path in paths]


def cpu(run):
    """Seconds of the server's processor time while it was measured."""
    return run["server"]["recovered"]["cpu_seconds"] - run["server"]["up"]["cpu_seconds"]


def count(run, request):
    return run["response"][request]["corrected"]["count"]


def median(values):
    return statistics.median(values) if values else None


def spread(values, text):
    if len(values) < 2:
        return ""
    return f" ({text(min(values))} to {text(max(values))})"


def number(value):
    return f"{value:,.0f}"


def per_cpu(folder, name, request):
    found = [count(run, request) / cpu(run) for run in runs(folder, name) if cpu(run) > 0]
    return found


def rss(run, point):
    return run["server"][point]["rss_kib"] * 1024


def connects(total):
    """As bare as it can be: connect, accept, close; a thread for each end, 512 at a time."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)

    def accept():
        for _ in range(total):
            listener.accept()[0].close()

    thread = threading.Thread(target=accept)
    thread.start()
    begin = time.monotonic()
    open_now = []
    for _ in range(total):
        one = socket.socket()
        one.connect(listener.getsockname())
        open_now.append(one)
        if len(open_now) == 512:
            [one.close() for one in open_now]
            open_now.clear()
    thread.join()
    return time.monotonic() - begin


def watch(core, seconds, found):
    """Reads the clock on one core, and notes each gap of a millisecond or more."""
    gc.disable()
    os.sched_setaffinity(0, {core})
    gaps = []
    end = before = time.monotonic_ns()
    end += int(seconds * 1e9)
    while before < end:
        now = time.monotonic_ns()
        if now - before >= 1_000_000:
            gaps.append((now - before) / 1e6)
        before = now
    found.put(gaps)


def stalls(seconds):
    """What a set-up on these two cores waits for whatever the programs do."""
    found = multiprocessing.Queue()
    watchers = [multiprocessing.Process(target=watch, args=(core, seconds, found)) for core in (0, 1)]
    for watcher in watchers:
        watcher.start()
    gaps = sorted(gap for _ in watchers for gap in found.get())
    return {"seconds": seconds, "gaps_ms": gaps}


def kept(run):
    """What became of the calls of a drill."""
    excess, calls = run["recovery"]["excess"], run["calls"]
    return (
        f"{number(calls['kept'])} of {number(calls['intended'])} kept; beyond the delay p50 "
        f"{excess['p50_ms']:,.0f}, p99 {excess['p99_ms']:,.0f}, max {excess['max_ms']:,.0f} ms"
    )


def table(folder):
    rows = []
    for name, request, title, goal in [
        ("calls-1", "bye", "calls a CPU second, 1 connection to each side", "30,000"),
        ("calls-1000", "bye", "the same, 1,000 connections to each side", "12,000"),
        ("reinvites-1", "reinvite", "re-INVITEs a CPU second, 1,000 calls", "60,000"),
    ]:
        found = per_cpu(folder, name, request)
        if found:
            rows.append((title, goal, number(median(found)) + spread(found, number)))
    set_ups = map(load, glob.glob(f"{folder}/set-up-*.json"))
    for run in sorted(set_ups, key=lambda run: run["offered_per_second"]):
        invite = run["response"]["invite"]["corrected"]
        busy = [cpu(run) / run["seconds"], run["generator"]["cpu_seconds"] / (run["seconds"] + run["parameters"]["warm_up_s"])]
        title = f"p99 of a call set-up at {number(run['done_per_second'])} calls/s, open loop"
        text = (
            f"p50 {invite['p50_ms']:.2f}, p99 {invite['p99_ms']:.2f} ms; of their cores the server used "
            f"{busy[0]:.0%}, the generator {busy[1]:.0%}"
        )
        rows.append((title, "1 ms at half the maximum", text))
    path = f"{folder}/stalls.txt"
    if os.path.exists(path):
        found = load(path)
        gaps = found["gaps_ms"]
        title = "just before: how often one of the two cores stood still for 1 ms or more under a loop that reads the clock"
        share = sum(gaps) / 10 / found["seconds"] / 2
        text = f"{len(gaps)} times in {found['seconds']:.0f} s, {share:.2f} % of their time, the longest {max(gaps, default=0):.1f} ms"
        rows.append((title, "", text))
    once, ten = runs(folder, "overload-1x"), runs(folder, "overload-10x")
    if once and ten:
        rates = [run[0]["done_per_second"] for run in (once, ten)]
        offered = ten[0]["offered_per_second"]
        title = f"goodput at {number(offered)} new calls/s, of which 2,000 are admitted"
        text = f"{number(rates[1])} calls/s, {100 * rates[1] / rates[0]:.1f} % of what 2,000/s give"
        rows.append((title, "95 %", text))
    path = f"{folder}/connects.txt"
    if os.path.exists(path):
        with open(path) as file:
            seconds = float(file.read())
        for run in runs(folder, "drill-each"):
            many = number(run["parameters"]["callee_connections"])
            bare = f"; {many} bare connects in {1000 * seconds:,.0f} ms"
            title = f"{many} calls on as many connections, all reset"
            rows.append((title, "1.5 × the bare connects", kept(run) + bare))
    for name, title, goal in [
        ("drill-10", "10,000 calls on 10 connections, all reset", "1.2 × 10,000 / re-INVITEs a second"),
        ("drill-1000", "100,000 calls on 1,000 connections, all reset under a re-INVITE each", "none lost"),
    ]:
        rows.extend((title, goal, kept(run)) for run in runs(folder, name))
    together = per_cpu(folder, "shards", "bye")
    apart = per_cpu(folder, "servers-a", "bye") + per_cpu(folder, "servers-b", "bye")
    if together and apart:
        text = f"{median(together) / median(apart):.2f} (medians {number(median(together))}, {number(median(apart))})"
        title = "calls a CPU second of two shards that share a core over two servers of one shard that do"
        rows.append((title, "0.95 where cores are too few", text))
    rates = {}
    for shards in (1, 2, 4, 8, 16, 32, 64):
        for run in runs(folder, f"scaling-{shards}"):
            rates.setdefault(shards, []).append(run["done_per_second"])
    for shards, found in rates.items():
        text = f"{number(median(found))} calls/s, {median(found) / median(rates[1]):.2f} times one"
        rows.append((f"{shards} shards, a core each", f"{0.95 * shards:.2f} times one", text))
    costs = {}
    for name, calls in [("held-1k", 1000), ("held-100k", 100_000), ("held-1m", 1_000_000)]:
        for run in runs(folder, name):
            costs[name] = count(run, "reinvite") / cpu(run)
            if calls > 1000:
                each = (rss(run, "up") - rss(run, "idle")) / calls
                own = run["generator"]["rss_peak_kib"] * 1024 / calls
                title = f"memory of an established call, {number(calls)} of them"
                rows.append((title, "4 KiB", f"{each:,.0f} bytes (generator {own:,.0f}, both ends)"))
    if {"held-1k", "held-1m"} <= costs.keys():
        text = f"{costs['held-1k'] / costs['held-1m']:.2f}"
        rows.append(("cost of a re-INVITE among 1 M calls over one among 1 k", "1.3", text))
    print("| work | goal | measured |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["connects", total]:
            print(connects(int(total)))
        case ["stalls", seconds]:
            print(json.dumps(stalls(float(seconds))))
        case ["table", folder]:
            table(folder)
        case _:
            sys.exit(__doc__)
