"""What compare-bigquery prints: one table per direction, and the stand-in by itself."""

import harness


def print_result(result):
    where = result["machine"]
    print(f"{result['rows']:,} rows of {result['logical_bytes_per_row']} logical bytes ({result['json_bytes_per_row']} as "
          f"JSON), {result['rounds']} rounds, {where['cpus']} CPUs ({where['cpu']}), load {where['load_1min_at_start']} "
          "at the start; seconds until started: "
          f"rekindle {result['start_seconds']['rekindle']}, Python with its imports {result['start_seconds']['python']}")
    for direction, found in result["directions"].items():
        print_tools(direction, found["tools"], found["ratios"])
    print_tools("stand-in alone", result["stand_in_alone"], {})
    if result["codec"]:
        print("\ncodec of blocks, on one core: " + ", ".join(f"{k} {v:,.1f}" for k, v in result["codec"].items()))
    if result["redis_bytes_per_row"]:
        print("\nRedis bytes per row: " + ", ".join(f"{k} {v}" for k, v in result["redis_bytes_per_row"].items()))


def print_tools(title, tools, ratios):
    print(f"\n{title:<24}{'k rows/s':>10}{'min':>8}{'max':>8}{'MB/s':>8}   {'CPU us/row: client':<18}{'stand-in':>10}"
          f"{'redis':>8}   {'cores: stand-in':<15}{'redis':>8}   rekindle is")
    for tool, values in tools.items():
        cpu, cores = values["cpu_us_per_row"], values["cores"]
        told = f"   {ratio_text(ratios[tool])}" if tool in ratios else ""
        print(f"{tool:<24}{harness.speed(values['rows_per_second'])}{values['mb_per_second']['median']:>8.1f}   "
              f"{figure(cpu, 'client'):>18}{figure(cpu, 'stand_in'):>10}{figure(cpu, 'redis'):>8}   "
              f"{figure(cores, 'stand_in'):>15}{figure(cores, 'redis'):>8}{told}")


def figure(values, name):
    return f"{values[name]:.2f}" if name in values else ""


def ratio_text(ratio):
    return f"{ratio['of_medians']:.2f}x ({ratio['by_round_min']:.2f} to {ratio['by_round_max']:.2f})"
