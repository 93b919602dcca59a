#!/usr/bin/env bash
# Print how many jobs of GB gigabytes each fit this machine: `tools/max_jobs.sh GB`. At least 1, at most one per core.
set -eu
gigabytes=$1
# nproc takes OMP_NUM_THREADS for the number of cores.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
memory=$(awk '/^MemAvailable:/ { printf "%.0f", $2 * 1024 }' /proc/meminfo 2>/dev/null || true)
# A container may be allowed less than the machine has.
limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true)
awk -v cores="$cores" -v memory="${memory:-0}" -v limit="${limit:-0}" -v each="$gigabytes" 'BEGIN {
    if (memory + 0 <= 0) memory = each * 1e9 * cores
    if (limit + 0 > 0 && limit + 0 < memory) memory = limit + 0
    jobs = int(memory / (each * 1e9))
    print (jobs < 1) ? 1 : (jobs > cores) ? cores : jobs
}'
