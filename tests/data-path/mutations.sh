#!/usr/bin/env bash
# Takes each cure of the data path out and shows which seed of the simulation finds that.
#
#   tests/data-path/mutations.sh [SEEDS [MUTATION ...]]
#
# Each patch in mutations/ begins with a line that says what it takes out, and takes it out while the environment
# variable MUTATION has the patch's name. So all patches are applied to one copy of the working tree, built once.
# Fails if a patch does not apply any more or a mutation is not found. Not a part of tests/check.sh, as it takes long.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
seeds=${1:-1000}
shift || true
patches=("$here"/mutations/*.patch)
if (($#)); then patches=("${@/#/$here/mutations/}"); patches=("${patches[@]/%/.patch}"); fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git -C "$top" ls-files -z | (cd "$top" && tar --null --create --files-from=- --ignore-failed-read) | tar --extract -C "$copy"
for patch in "${patches[@]}"; do
    patch --quiet --forward --strip=1 --directory="$copy" <"$patch" || { echo "does not apply any more: $patch"; exit 1; }
done

# A folder of its own: cargo would take the crates of the copy for those of the working tree.
export CARGO_TARGET_DIR=$top/target/mutations
built=$(cd "$copy" && cargo test -p chordfs-data-path-tests --test checks --no-run 2>&1) || { echo "$built"; exit 1; }
checks=$(sed -n 's/.*Executable.*(\(.*\))/\1/p' <<<"$built")

missed=0
printf '%-22s %-6s %s\n' mutation seed message
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    output=$(cd "$copy/tests/data-path" && MUTATION=$name DATA_PATH_SEEDS=$seeds "$checks" promises_hold_in_every_run --nocapture 2>&1) || true
    grep -q '^[0-9]* seeds from' <<<"$output" || { echo "$output"; exit 1; }
    found=$(grep -m1 -E '^seed [0-9]+: ' <<<"$output" || true)
    if [ -z "$found" ]; then missed=$((missed + 1)); found="seed none: not found by $seeds seeds"; fi
    message=${found#seed *: }
    printf '%-22s %-6s %s\n' "$name" "$(cut -d' ' -f2 <<<"$found" | tr -d :)" "${message:0:120}"
done
exit $((missed > 0))
