# shellcheck shell=bash
#
# What tuning/tune remembers, one line each:
#
#   holdfast tuning 1
#   boot|ID                      of the boot in which the values were set
#   file|CHECKSUM                of the file in /etc/sysctl.d, when it was written
#   set|PATH|ORIGINAL|OURS       as the kernel wrote them
#
# The program runs as root and writes what this file says, so it believes only lines that it could have written.

state_name=/var/lib/holdfast/tuning.state
readonly persistent_file=/etc/sysctl.d/61-holdfast-tuning.conf
readonly STATE_HEAD='holdfast tuning 1'
# Queues and interrupts of one interface are far fewer.
readonly STATE_LINES_MAX=10000

# Paths in the order in which they were set, and of each the values.
remembered=()
declare -A original=() ours=()
persistent_sum=

boot_id() {
    read_value /proc/sys/kernel/random/boot_id || value=unknown
    printf '%s' "$value"
}

sum_of() {
    local sum
    sum=$({ cksum <"$1" || echo none; } 2>/dev/null)
    printf '%s' "${sum// /:}"
}

# Whether a path is one that settings.sh could name.
is_ours() {
    local net='/sys/class/net/[A-Za-z0-9_.:@-]+/queues'
    case $1 in
    */../* | */./*) return 1 ;;
    /proc/sys/net/core/somaxconn | /proc/sys/net/core/netdev_max_backlog | /proc/sys/fs/nr_open) ;;
    /proc/sys/net/core/busy_poll | /proc/sys/net/core/busy_read | /proc/sys/net/core/rps_sock_flow_entries) ;;
    /proc/sys/net/ipv4/ip_local_port_range | /proc/sys/net/ipv4/tcp_tw_reuse) ;;
    *) [[ $1 =~ ^($net/(rx-[0-9]+/rps_(cpus|flow_cnt)|tx-[0-9]+/xps_cpus)|/proc/irq/[0-9]+/smp_affinity_list|/sys/devices/system/cpu/cpu[0-9]+/cpufreq/scaling_governor)$ ]] ;;
    esac
}

# One apply or undo at a time.
lock_state() {
    local folder
    folder=$(dirname "$root$state_name")
    mkdir -p "$folder" 2>/dev/null || refuse "cannot make the folder of $state_name"
    exec {state_lock}<"$folder"
    command -v flock >/dev/null || return 0
    flock --nonblock "$state_lock" || refuse 'another apply or undo is at work'
}

# Reads the state file, if there is one. Ends the program when it is not to be believed.
load_state() {
    local file=$root$state_name number=0 boot='' text kind path old new more
    [[ -e $file || -L $file ]] || return 0
    [[ -f $file && ! -L $file ]] || refuse "$state_name is no plain file"
    [[ -r $file ]] || refuse "cannot read $state_name"
    [[ -O $file ]] || ((EUID != 0)) || refuse "$state_name belongs to somebody else"
    while IFS= read -r text || [[ -n $text ]]; do
        number=$((number + 1))
        ((number <= STATE_LINES_MAX)) || broken "$number" "$text" "no more than $STATE_LINES_MAX lines"
        if ((number == 1)); then
            [[ $text == "$STATE_HEAD" ]] || broken 1 "$text" "$STATE_HEAD"
            continue
        fi
        # A tab is part of a value.
        IFS='|' read -r kind path old new more <<<"$text"
        case $kind in
        boot) boot=$path ;;
        file)
            [[ $path =~ ^[0-9]+:[0-9]+$ ]] || broken "$number" "$text" 'file|CHECKSUM'
            persistent_sum=$path
            ;;
        set)
            if [[ $text != set\|*\|*\|* || -n $more ]] || ! { is_ours "$path" && is_value "$old" && is_value "$new"; }; then
                broken "$number" "$text" 'set|PATH|ORIGINAL|OURS with a path that this program sets'
            fi
            [[ -z ${original[$path]+known} ]] || broken "$number" "$text" 'each path once'
            remembered+=("$path")
            original[$path]=$old ours[$path]=$new
            ;;
        *) broken "$number" "$text" 'boot, file or set' ;;
        esac
    done <"$file"
    [[ -n $boot ]] || refuse "$state_name has no line of the boot: it was cut short; see tuning/README.md"
    [[ $boot == "$(boot_id)" ]] || forget_lost
}

# broken LINE TEXT EXPECTED
broken() {
    refuse "$state_name:$1: found \`$(printf '%q' "${2:0:100}")\`, expected $3; nothing was changed, see tuning/README.md"
}

# After a boot only what /etc/sysctl.d has set again is still ours.
forget_lost() {
    local path paths=("${remembered[@]}")
    for path in "${paths[@]}"; do
        if [[ $path != /proc/sys/* ]] || ! read_value "$path" || [[ $value != "${ours[$path]}" ]]; then
            printf 'forgotten: %s was lost when the machine was booted\n' "$(name_of "$path")"
            forget "$path"
        fi
    done
}

# remember PATH ORIGINAL OURS; the first original stays.
remember() {
    if [[ -z ${original[$1]+known} ]]; then
        remembered+=("$1")
        original[$1]=$2
    fi
    ours[$1]=$3
    save_state
}

forget() {
    local path kept=()
    for path in "${remembered[@]}"; do
        [[ $path == "$1" ]] || kept+=("$path")
    done
    remembered=("${kept[@]}")
    unset "original[$1]" "ours[$1]"
}

state_text() {
    local path
    printf '%s\nboot|%s\n' "$STATE_HEAD" "$(boot_id)"
    [[ -z $persistent_sum ]] || printf 'file|%s\n' "$persistent_sum"
    for path in "${remembered[@]}"; do
        printf 'set|%s|%s|%s\n' "$path" "${original[$path]}" "${ours[$path]}"
    done
}

# Writes the state file, whole or not at all; removes it when there is nothing to remember.
save_state() {
    local file=$root$state_name
    if ((${#remembered[@]} == 0)) && [[ -z $persistent_sum ]]; then
        rm -f "$file" || refuse "cannot remove $state_name"
        return
    fi
    { state_text >"$file.new" && mv -f "$file.new" "$file"; } 2>/dev/null ||
        refuse "cannot write $state_name: nothing more is changed"
}
