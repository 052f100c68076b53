# shellcheck shell=bash
# Processes of the bed: start, recognise, stop. A process is known by its id together with the time
# it started, so a stranger that was given the same id later is never taken for ours.

# The start time (field 22, clock ticks since boot) of a process that is not a zombie.
start_ticks() {
    local line
    line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name in parentheses may hold blanks and parentheses itself.
    local -a fields
    read -ra fields <<<"${line##*) }"
    [[ ${fields[0]} != [ZX] ]] || return 1
    printf '%s' "${fields[19]}"
}

# Prints the id of a running part; fails when it does not run.
part_pid() {
    local pid ticks
    read -r pid ticks 2>/dev/null <"$BED_DIR/run/$1.pid" || return 1
    [[ -n $ticks && $(start_ticks "$pid") == "$ticks" ]] || return 1
    printf '%s' "$pid"
}

runs() { part_pid "$1" >/dev/null; }

# Starts part $1 as a process of its own session, with an empty environment: what the caller
# exports (a proxy, GOFLAGS, LD_*) must not change what is tested. Descriptor 9 is the lock.
spawn() {
    local part=$1
    shift
    setsid "${INSIDE[@]}" env -i "PATH=$KUBE_BIN:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        "HOME=$BED_DIR/run" LANG=C.UTF-8 "$@" >>"$BED_DIR/log/$part.log" 2>&1 </dev/null 9>&- &
    record_part "$part" $!
}

record_part() { printf '%s %s\n' "$2" "$(start_ticks "$2")" >"$BED_DIR/run/$1.pid"; }

# Sends signal $1 to the parts named after it and waits until they are gone.
end_parts() {
    local signal=$1 part pid
    shift
    for part in "$@"; do
        if pid=$(part_pid "$part"); then kill "-$signal" "$pid" 2>/dev/null || true; fi
    done
    for part in "$@"; do
        wait_until 30 not runs "$part" || return 1
    done
}

not() { ! "$@"; }

# Repeats a probe until it succeeds; fails after $1 seconds.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# Waits until the parts answer and prints how long each took from its start (see begin_part); fails
# when one of them ends or has not answered after 90 s.
wait_parts() {
    local deadline=$((SECONDS + 90)) part
    local -a left=("$@") still
    while ((${#left[@]})); do
        still=()
        for part in "${left[@]}"; do
            if "probe_$part" >/dev/null 2>&1; then
                printf '  %-12s %6s s\n' "$part" "$(elapsed "${started[$part]}")" >&2
            elif ! runs "$part"; then
                part_failed "$part" "ended"
            elif ((SECONDS >= deadline)); then
                part_failed "$part" "did not answer within 90 s"
            else
                still+=("$part")
            fi
        done
        left=("${still[@]}")
        ((${#left[@]} == 0)) || sleep 0.1
    done
}

declare -A started=()
begin_part() {
    started[$1]=$EPOCHREALTIME
    runs "$1" || "start_$1"
}

part_failed() {
    say "bed: $1 $2. The end of $BED_DIR/log/$1.log:"
    tail -n 20 "$BED_DIR/log/$1.log" 2>/dev/null | cut -c1-400 | sed 's/^/    /' >&2
    exit 1
}
