# shellcheck shell=bash
#
# Which settings there are, what Holdfast wants of each, and how they are read and written; for tuning/tune.
#
# A setting has a rule: equal, least (a number), ports (as many local ports at least), mask (of cores, in hexadecimal).

# What the options say.
cores=
irq_cores=
interface=
busy_poll=
process=self
persist=0
force=0
dry_run=0

readonly root=${TUNING_ROOT:-}
# The kernel's own default has 28,232.
readonly PORTS_MIN=28000
# Below `flows-max` × shards connections wait; this is enough for two shards with the default.
readonly NOFILE_MIN=262144
# What glommio asks for, and what it locks for each shard: with `huge-pages = "on"` three of them.
readonly MEMLOCK_KIB_MIN=512 MEMLOCK_KIB_SHARD=192 MEMLOCK_KIB_SHARD_HUGE=6144
# Flows that the kernel knows the core of.
readonly RFS_ENTRIES=32768
# As in the server's `cores`, and far above any core's number.
readonly CORES_MAX=256 CORE_MAX=8191

core_list=()
irq_core_list=()

# --- files -----------------------------------------------------------------------------------------------------------

# The first line of a file, in $value. Fails where it is absent or cannot be read.
read_value() {
    value=
    # Some files of /sys can be opened and not read.
    { IFS= read -r value <"$root$1" || [[ -n $value ]]; } 2>/dev/null
}

write_value() {
    { printf '%s\n' "$2" >"$root$1"; } 2>/dev/null
}

# Settings are words of this kind; anything else is not remembered and so not overwritten.
is_value() {
    [[ $1 =~ ^[0-9A-Za-z_,$'\t '-]*$ ]]
}

name_of() {
    local name=$1
    if [[ $name == /proc/sys/* ]]; then
        name=${name#/proc/sys/}
        name=${name//\//.}
    fi
    printf '%s' "$name"
}

# --- rules -----------------------------------------------------------------------------------------------------------

is_number() {
    [[ $1 =~ ^[0-9]{1,18}$ ]]
}

# A mask without commas and leading zeros.
plain_mask() {
    local mask=${1//,/}
    mask=${mask,,}
    mask=${mask#"${mask%%[!0]*}"}
    printf '%s' "${mask:-0}"
}

# meets RULE VALUE WANTED
meets() {
    local low high words
    case $1 in
    equal)
        read -ra words <<<"$2"
        [[ ${words[*]} == "$3" ]]
        ;;
    least) is_number "$2" && ((10#$2 >= $3)) ;;
    mask) [[ $2 =~ ^[0-9a-fA-F,]+$ && $(plain_mask "$2") == "$(plain_mask "$3")" ]] ;;
    ports)
        read -r low high <<<"$2"
        is_number "$low" && is_number "$high" && ((10#$high - 10#$low + 1 >= PORTS_MIN))
        ;;
    esac
}

# in_words RULE WANTED
in_words() {
    case $1 in
    least) printf 'at least %s' "$2" ;;
    ports) printf 'at least %s' "$PORTS_MIN ports" ;;
    *) printf '%s' "$2" ;;
    esac
}

# --- cores -----------------------------------------------------------------------------------------------------------

# Cores of a list such as 0-3,8, one a line. Fails when it is none.
expand_cores() {
    local part first last count=0
    [[ $1 =~ ^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$ ]] || return 1
    for part in ${1//,/ }; do
        first=$((10#${part%-*})) last=$((10#${part#*-}))
        count=$((count + last - first + 1))
        ((first <= last && last <= CORE_MAX && count <= CORES_MAX)) || return 1
        seq "$first" "$last"
    done
}

# mask_of CORE...: as the kernel writes it, words of 32 bits.
mask_of() {
    local core words=() word top=0 text=
    for core; do
        word=$((core / 32))
        words[word]=$((${words[word]:-0} | 1 << core % 32))
        ((word <= top)) || top=$word
    done
    for ((word = top; word >= 0; word--)); do
        printf -v text '%s%08x,' "$text" "${words[word]:-0}"
    done
    printf '%s' "${text%,}"
}

# Looks at what the options say of the machine, before anything is read or written.
prepare_settings() {
    local list
    if [[ -z $cores ]]; then
        read_value /sys/devices/system/cpu/online || value=0
        cores=$value
    fi
    list=$(expand_cores "$cores") || refuse "--cores is \`$cores\`, expected is a list such as 0-3,8 of at most $CORES_MAX"
    mapfile -t core_list <<<"$list"
    irq_cores=${irq_cores:-$cores}
    list=$(expand_cores "$irq_cores") || refuse "--irq-cores is \`$irq_cores\`, expected is a list such as 0-3,8"
    mapfile -t irq_core_list <<<"$list"
    if [[ -n $interface ]]; then
        [[ $interface =~ ^[A-Za-z0-9_.:@-]{1,15}$ && $interface != . && $interface != .. ]] ||
            refuse "--interface is \`$interface\`, which is no name of an interface"
        [[ -d $root/sys/class/net/$interface ]] || refuse "there is no interface $interface"
        if [[ $interface == lo ]]; then
            printf 'skipped: loopback has no queues and no interrupts of its own\n'
            interface=
        fi
    fi
}

# --- settings --------------------------------------------------------------------------------------------------------

# Calls VISITOR NAME PATH RULE WANTED WHY for each setting.
each_setting() {
    local visitor=$1
    sysctl_setting net.core.somaxconn least 4096 'a listener asks for a backlog of 1024; this cuts it'
    sysctl_setting net.core.netdev_max_backlog least 4096 'packets of a burst that wait for a core, with RPS and on loopback'
    sysctl_setting net.ipv4.ip_local_port_range ports '32768 60999' 'connections out to one address and port'
    sysctl_setting net.ipv4.tcp_tw_reuse equal 1 'a port in TIME-WAIT serves the next connection out after 1 s'
    sysctl_setting fs.nr_open least "$NOFILE_MIN" 'bounds LimitNOFILE'
    if [[ -n $busy_poll ]]; then
        sysctl_setting net.core.busy_poll equal "$busy_poll" 'asked for by --busy-poll'
        sysctl_setting net.core.busy_read equal "$busy_poll" 'asked for by --busy-poll'
    fi
    governors
    [[ -z $interface ]] || queues
}

# sysctl_setting NAME RULE WANTED WHY
sysctl_setting() {
    "$visitor" "$1" "/proc/sys/${1//.//}" "$2" "$3" "$4"
}

governors() {
    local core path
    if [[ ! -e $root/sys/devices/system/cpu/cpu${core_list[0]}/cpufreq ]]; then
        # One line for a machine that leaves the frequency to its host.
        path=/sys/devices/system/cpu/cpu${core_list[0]}/cpufreq/scaling_governor
        "$visitor" 'cpu governor' "$path" equal performance -
        return
    fi
    for core in "${core_list[@]}"; do
        path=/sys/devices/system/cpu/cpu$core/cpufreq/scaling_governor
        "$visitor" "governor of cpu$core" "$path" equal performance 'a core that must speed up first answers late'
    done
}

# Where the packets of the interface are worked on.
queues() {
    local base=/sys/class/net/$interface/queues rx tx queue number wanted index share
    rx=("$root$base"/rx-*) tx=("$root$base"/tx-*)
    sysctl_setting net.core.rps_sock_flow_entries least "$RFS_ENTRIES" 'RFS: packets go to the core of their shard'
    for queue in "${rx[@]}"; do
        number=${queue##*rx-}
        wanted=0
        ((${#rx[@]} >= ${#core_list[@]})) || wanted=$(mask_of "${core_list[@]}")
        "$visitor" "$interface rx-$number rps_cpus" "$base/rx-$number/rps_cpus" mask "$wanted" 'RPS: only where queues are fewer than shards'
        "$visitor" "$interface rx-$number rps_flow_cnt" "$base/rx-$number/rps_flow_cnt" least $((RFS_ENTRIES / ${#rx[@]})) 'RFS: share of this queue'
    done
    # With one queue there is nothing to choose.
    for ((number = 0; ${#tx[@]} > 1 && number < ${#tx[@]}; number++)); do
        share=()
        for ((index = number; index < ${#core_list[@]}; index += ${#tx[@]})); do
            share+=("${core_list[index]}")
        done
        ((${#share[@]} > 0)) || share=("${core_list[number % ${#core_list[@]}]}")
        "$visitor" "$interface tx-$number xps_cpus" "$base/tx-$number/xps_cpus" mask "$(mask_of "${share[@]}")" 'XPS: each shard sends by a queue of its own'
    done
    interrupts
}

# The interrupts of the interface's queues, each on one core; queue 0 on the first.
interrupts() {
    local folder file irq name core
    for folder in "$root/sys/class/net/$interface/device/msi_irqs" "$root/sys/class/net/$interface/device/../msi_irqs"; do
        [[ -d $folder ]] && break
    done
    for file in "$folder"/*; do
        irq=${file##*/}
        [[ $irq =~ ^[0-9]{1,9}$ ]] || continue
        name=$(interrupt_name "$irq")
        # Not those of the device itself.
        [[ ! $name =~ config|async|control|ctrl|event|misc ]] || continue
        [[ $name =~ ([0-9]{1,5})(@.*)?$ ]] || continue
        core=${irq_core_list[10#${BASH_REMATCH[1]} % ${#irq_core_list[@]}]}
        "$visitor" "irq $irq ($name)" "/proc/irq/$irq/smp_affinity_list" equal "$core" 'interrupts of a queue stay on one core'
    done
}

# What /proc/interrupts calls an interrupt.
interrupt_name() {
    { awk -v irq="$1:" '$1 == irq { print $NF }' "$root/proc/interrupts" || true; } 2>/dev/null
}

# --- advice ----------------------------------------------------------------------------------------------------------

# Calls VISITOR GOOD NAME NOW WANTED WHY for what a person must change; GOOD is yes, no or absent.
each_advice() {
    local visitor=$1 locked=$MEMLOCK_KIB_SHARD
    if in_huge_pages && read_value /sys/kernel/mm/transparent_hugepage/enabled && [[ $value != *'[never]'* ]]; then
        locked=$MEMLOCK_KIB_SHARD_HUGE
    fi
    # One more is tried before the shards start.
    locked=$((locked * (${#core_list[@]} + 1)))
    ((locked > MEMLOCK_KIB_MIN)) || locked=$MEMLOCK_KIB_MIN
    limit_advice 'Max open files' 'open files (LimitNOFILE)' "$NOFILE_MIN" 1 '' '1 for each connection'
    limit_advice 'Max locked memory' 'locked memory (LimitMEMLOCK)' "$locked" 1024 ' KiB' 'rings of io_uring; not counted with CAP_IPC_LOCK'
    if ! read_value /proc/sys/kernel/io_uring_disabled; then
        "$visitor" absent kernel.io_uring_disabled - '0, or 1 with group' 'not offered here: skipped'
    elif [[ $value == 2 ]]; then
        "$visitor" no kernel.io_uring_disabled "$value" '0, or 1 with group' 'without io_uring nothing starts'
    else
        "$visitor" yes kernel.io_uring_disabled "$value" '0, or 1 with group' 'without io_uring nothing starts'
    fi
    hyperthread_advice
    [[ -z $interface ]] || irqbalance_advice
}

# A server that runs with `huge-pages = "on"`. Without --pid it is taken for one with the default, "off".
in_huge_pages() {
    [[ $process != self ]] && grep -q '^THP_enabled:[[:space:]]*1$' "$root/proc/$process/status" 2>/dev/null
}

# The hard limit: the server raises its soft one. limit_advice LINE NAME WANTED DIVISOR UNIT WHY
limit_advice() {
    local found
    found=$({ sed -n "s/^$1  *[^ ]*  *\([^ ]*\) .*/\1/p" "$root/proc/$process/limits" || true; } 2>/dev/null)
    if [[ $found == unlimited ]]; then
        "$visitor" yes "$2" "$found" "at least $3$5" "$6"
    elif ! is_number "$found"; then
        "$visitor" absent "$2" - "at least $3$5" 'cannot be read: skipped'
    elif ((found / $4 >= $3)); then
        "$visitor" yes "$2" "$((found / $4))$5" "at least $3$5" "$6"
    else
        "$visitor" no "$2" "$((found / $4))$5" "at least $3$5" "$6"
    fi
}

# Cores of the list that are one core to the machine.
hyperthread_advice() {
    local core other siblings shared=
    for core in "${core_list[@]}"; do
        read_value "/sys/devices/system/cpu/cpu$core/topology/thread_siblings_list" || continue
        siblings=$(expand_cores "$value") || continue
        for other in $siblings; do
            ((other > core)) || continue
            [[ " ${core_list[*]} " != *" $other "* ]] || shared+=" $core+$other"
        done
    done
    if [[ -n $shared ]]; then
        "$visitor" no 'shards on hyperthreads of one core' "${shared# }" none 'two do the work of little more than one'
    else
        "$visitor" yes 'shards on hyperthreads of one core' none none 'two do the work of little more than one'
    fi
}

# It moves interrupts back every ten seconds.
irqbalance_advice() {
    local file
    for file in "$root"/proc/[0-9]*/comm; do
        if read_value "${file#"$root"}" && [[ $value == irqbalance ]]; then
            "$visitor" no irqbalance running 'stopped' 'it moves interrupts where it likes'
            return
        fi
    done
    "$visitor" yes irqbalance 'not running' 'stopped' 'it moves interrupts where it likes'
}
