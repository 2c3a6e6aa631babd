#!/bin/sh
# Installs SLURM from Debian's packages if it is missing; where that cannot be done, says why.
missing=""
for program in slurmctld slurmd sbatch munged mungekey; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
impatient="-qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "SLURM cannot be installed: that takes root and apt-get install slurm-wlm munge; missing:$missing"
elif ! { apt-get update $impatient &&
    DEBIAN_FRONTEND=noninteractive apt-get install -y $impatient --no-install-recommends slurm-wlm munge >/dev/null; }; then
    echo "SLURM cannot be installed: apt-get failed, see above; missing:$missing"
fi
exit 0
