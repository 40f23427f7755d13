"""Prints what tests/versus/run wrote, table.py DIR, and draws the recovery curves into DIR/recovery.svg."""

import base64
import glob
import json
import math
import os
import statistics
import struct
import sys
import zlib

# Seconds after the fault at which the recovery curve is read.
INSTANTS = [0.5, 0.6, 0.7, 1, 2, 5, 10, 30, 31, 37]
COLORS = ["#1a6b3c", "#b03030", "#3050b0", "#b07a10"]


def times(hdr):
    """Pairs of value in ms and count of a histogram: HdrHistogram V2, deflated, base64."""
    packed = base64.b64decode(hdr)
    data = zlib.decompress(packed[8:])
    digits = struct.unpack(">I", data[12:16])[0]
    half = 1 << (2 * 10**digits - 1).bit_length() - 1
    at, index = 40, 0
    while at < len(data):
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            # The ninth byte has eight bits of its own.
            number |= (byte if shift == 56 else byte & 0x7F) << shift
            shift += 7
            if shift == 63 or byte < 0x80:
                break
        count = (number >> 1) ^ -(number & 1)
        if count < 0:
            index -= count
            continue
        if count > 0:
            bucket = max(index // half - 1, 0)
            yield (index - bucket * half << bucket) / 1000, count
        index += 1


def curve(result):
    """Pairs of seconds since the fault and calls safe again by then, and how many were in danger."""
    recovery = result["recovery"]
    if not recovery:
        return [], 0
    safe, steps = 0, []
    for value, count in times(recovery["answered"]["hdr"]):
        safe += count
        steps.append((value / 1000, safe))
    return steps, recovery["endangered"]


def safe_by(steps, seconds):
    return max((safe for at, safe in steps if at <= seconds), default=0)


def drills(results):
    for size in sorted({name.split(".")[2] for name in results}, key=int):
        for fault in ["before-read", "after-read", "after-100"]:
            start = f"drill.{fault}.{size}."
            found = {name.removeprefix(start): run for name, run in results.items() if name.startswith(start)}
            if not found:
                continue
            print(f"\n{size} calls, reset {fault}: % of the calls in danger safe so many s after the reset")
            instants = "".join(f"{instant:>6g}" for instant in INSTANTS)
            print(f"{'':<20}{'kept':>6}{'lost':>6}{'other':>6} |{instants} | p50, max in s; breaches; CPU s")
            for server, run in found.items():
                print(drill(server, run))


def drill(server, run):
    steps, endangered = curve(run)
    calls, recovery = run["calls"], run["recovery"]
    shares = "".join(f"{100 * safe_by(steps, at) / max(endangered, 1):>6.0f}" for at in INSTANTS)
    other = calls["failed"] + calls["unknown"] + calls["released"] + calls["refused"]
    answered = recovery["answered"] if recovery else {"count": 0}
    spread = "-"
    if answered["count"]:
        spread = f"{answered['p50_ms'] / 1000:.3f}, {answered['max_ms'] / 1000:.3f}"
    breaches = sum(run["violations"]["counts"].values())
    used = run["server"]["after"]["cpu_seconds"] - run["server"]["idle"]["cpu_seconds"]
    return f"{server:<20}{calls['kept']:>6}{calls['lost']:>6}{other:>6} |{shares} | {spread}; {breaches}; {used:.2f}"


def closed(results):
    """Figures for a CPU second, from the start of the measured time to its end."""
    for scenario, label in [("call", "calls"), ("standing", "re-INVITEs")]:
        found = {}
        for name, run in results.items():
            kind, _, server = name.split(".")
            if kind == scenario:
                found.setdefault(server, []).append(figures(run, scenario))
        if not found:
            continue
        of_cpu = {server: [one[0] for one in runs] for server, runs in found.items()}
        print(f"\n{label}: median (lowest to highest) of {max(map(len, of_cpu.values()))} runs")
        print(f"{'':<20}{'for a CPU second':<28}{'a second':<10}{'server busy':<13}{'failed':<8}against holdfast")
        base = statistics.median(of_cpu.get("holdfast", [float("nan")]))
        for server, runs in found.items():
            median = statistics.median(of_cpu[server])
            spread = f"{median:,.0f} ({min(of_cpu[server]):,.0f} to {max(of_cpu[server]):,.0f})"
            rate, busy = (statistics.median(one[at] for one in runs) for at in (1, 2))
            failed = sum(one[3] for one in runs)
            print(f"{server:<20}{spread:<28}{rate:<10,.0f}{busy:<13.0%}{failed:<8}{median / base:.2f}")


def figures(run, scenario):
    done = run["response"]["invite" if scenario == "call" else "reinvite"]["corrected"]["count"]
    server, seconds = run["server"], run["seconds"]
    used = server["recovered"]["cpu_seconds"] - server["up"]["cpu_seconds"]
    calls = run["calls"]
    failed = sum(calls[name] for name in ("lost", "failed", "unknown", "released", "refused"))
    return done / used, done / seconds, used / seconds, failed


def svg(results, size, fault):
    """The recovery curves of the drills of one size at one fault, by the logarithm of the time."""
    width, height, left, top = 720, 360, 56, 28
    low, high = -1, 1.6
    start = f"drill.{fault}.{size}."
    def x(seconds):
        return left + (math.log10(max(seconds, 0.1)) - low) / (high - low) * (width - left - 12)

    def y(share):
        return top + (1 - share) * (height - top - 44)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="16">{size} calls, callees reset {fault}: calls in danger that are safe again</text>',
    ]
    for seconds in [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 37]:
        lines.append(f'<path d="M{x(seconds):.1f} {y(1):.1f}V{y(0):.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{x(seconds):.1f}" y="{y(0) + 16:.1f}" text-anchor="middle">{seconds:g}</text>')
    for share in [0, 0.25, 0.5, 0.75, 1]:
        lines.append(f'<path d="M{left} {y(share):.1f}H{width - 12}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    label = "seconds after the reset (logarithmic)"
    lines.append(f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">{label}</text>')
    found = [(name.removeprefix(start), run) for name, run in results.items() if name.startswith(start)]
    for at, (server, run) in enumerate(found):
        steps, endangered = curve(run)
        color = COLORS[at % len(COLORS)]
        path = f"M{x(0.1):.1f} {y(0):.1f}"
        for seconds, safe in steps:
            path += f"H{x(seconds):.1f}V{y(safe / endangered):.1f}"
        lines.append(f'<path d="{path}H{x(37):.1f}" fill="none" stroke="{color}" stroke-width="2"/>')
        label = f'{server}: {run["calls"]["kept"]} kept'
        lines.append(f'<text x="{left + 10}" y="{top + 20 + 16 * at}" fill="{color}">{label}</text>')
    return "\n".join(lines + ["</svg>", ""])


def main():
    folder = sys.argv[1]
    results = {}
    names = [os.path.basename(path).removesuffix(".json") for path in glob.glob(os.path.join(folder, "*.json"))]
    for name in sorted(names):
        with open(os.path.join(folder, f"{name}.json"), encoding="utf-8") as file:
            results[name] = json.load(file)
    drilled = {name: run for name, run in results.items() if name.startswith("drill.")}
    drills(drilled)
    closed({name: run for name, run in results.items() if name not in drilled})
    if drilled:
        size = max((name.split(".")[2] for name in drilled), key=int)
        with open(os.path.join(folder, "recovery.svg"), "w", encoding="utf-8") as file:
            file.write(svg(drilled, size, "after-read"))


main()
