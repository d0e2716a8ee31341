#!/usr/bin/env bash
# A Slurm of one machine for the tests: Debian's slurm-wlm and munge, started by hand (no systemd, no cgroups).
#
#   tests/slurm/setup.sh          install what is missing, start what is not running; may be repeated
#   tests/slurm/setup.sh stop     stop the three daemons
#
# Needs root on Debian or Ubuntu. Everything but the packages and munge's key lies in SLURM_TEST_DIR.
set -euo pipefail

dir=${SLURM_TEST_DIR:-/run/slurm-of-one-machine}  # a folder that only root can make
host=$(hostname -s)
export SLURM_CONF=$dir/slurm.conf

running() { local pid; pid=$(cat "$dir/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; }

stop() {
    for daemon in slurmd slurmctld munged; do
        running "$daemon" || continue
        kill "$(cat "$dir/$daemon.pid")"
        for _ in $(seq 100); do running "$daemon" || break; sleep 0.1; done
        if running "$daemon"; then kill -9 "$(cat "$dir/$daemon.pid")"; fi
        rm -f "$dir/$daemon.pid"
    done
}

[ "$(uname -s)" = Linux ] || { echo "Slurm runs on Linux only." >&2; exit 3; }
[ "$(id -u)" = 0 ] || { echo "Root is needed, to install packages and start the daemons." >&2; exit 3; }
if [ "${1:-start}" = stop ]; then stop; exit 0; fi

missing() { for program in slurmctld slurmd munged sbatch; do command -v "$program" >/dev/null || return 0; done; return 1; }
if missing; then
    command -v apt-get >/dev/null || { echo "apt-get is needed to install slurm-wlm and munge." >&2; exit 3; }
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >/dev/null ||
        { echo "apt-get could not install slurm-wlm and munge." >&2; exit 3; }
fi

mkdir -p "$dir/state" "$dir/spool"
chmod 755 "$dir"
cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
# a job that is queued again waits for its credential to expire
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
# no cgroups, no accounting, nothing bound to cores
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
# quick to start, quick to end, quick to come back after a requeue
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2
ReturnToService=2
KillWait=15
MinJobAge=300
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES OverSubscribe=FORCE:2 MaxTime=INFINITE State=UP
CONF

if [ ! -s /etc/munge/munge.key ]; then
    install -d -m 700 -o munge -g munge /etc/munge
    (umask 077; head -c 1024 /dev/urandom >/etc/munge/munge.key)
    chown munge:munge /etc/munge/munge.key
fi
if ! running munged; then
    install -d -m 711 -o munge -g munge "$dir/munge"
    rm -f "$dir/munge.socket"
    munged --force --key-file=/etc/munge/munge.key --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
        --log-file="$dir/munged.log" --seed-file="$dir/munge/seed"
fi
running slurmctld || slurmctld -c
running slurmd || slurmd

for _ in $(seq 150); do
    if sinfo --noheader --format=%T 2>/dev/null | grep -qE 'idle|mixed|allocated'; then
        echo "SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.2
done
echo "Slurm did not come up. The ends of its logs in $dir:" >&2
tail -n 15 "$dir"/slurmctld.log "$dir"/slurmd.log >&2
exit 1
