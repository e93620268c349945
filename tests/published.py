"""Sources of published projects, by the clients of their registries."""
import os
import pathlib
import re
import shutil
import subprocess
import sys


def sh(*words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def debian(folder, package):
    """The source of a package, with lists of packages of its own: the system's stay as they are."""
    lists = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (lists / part).mkdir(parents=True, exist_ok=True)
    # Where the system's packages are from, their sources are, too.
    (lists / "parts").mkdir()
    for file in [pathlib.Path("/etc/apt/sources.list"), *pathlib.Path("/etc/apt/sources.list.d").glob("*")]:
        if file.exists():
            text = re.sub(r"^(Types: *|)deb(?= |$)", r"\1deb-src", file.read_text(), flags=re.M)
            (lists / "parts" / file.name).write_text(text)
    (lists / "conf").write_text(
        f'Dir::Etc::sourcelist "{lists}/none"; Dir::Etc::sourceparts "{lists}/parts";\n'
        f'Dir::State::lists "{lists}/lists"; Dir::Cache "{lists}/cache";\n')
    env = {**os.environ, "APT_CONFIG": str(lists / "conf")}
    sh("apt-get", "update", "-qq", env=env)
    sh("apt-get", "source", "--download-only", "-qq", package, cwd=folder, env=env)
    [archive] = folder.glob(f"{package}_*.orig.tar.*")
    (folder / package).mkdir()
    sh("tar", "-C", folder / package, "--strip-components=1", "-xf", archive)
    return folder / package


def crate(folder, name, version):
    """From cargo's own client: a package that needs it, whose sources it then copies."""
    holder = folder / "holder"
    (holder / "src").mkdir(parents=True)
    (holder / "src/lib.rs").write_text("")
    (holder / "Cargo.toml").write_text(
        f'[package]\nname = "holder"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{name} = "={version}"\n[workspace]\n')
    sh("cargo", "vendor", "-q", folder / "vendor", cwd=holder)
    target = folder / name
    shutil.copytree(folder / "vendor" / name, target)
    return target
