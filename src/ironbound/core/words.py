"""A digest as words, for eyes and for the telephone: the same on every screen that shows the same content.

Data and one function; decides nothing. One word a byte, from a list of our own: 256 English words of four to seven
letters, no two alike in their first three letters or within two letters of each other.
"""

from __future__ import annotations

from typing import Final

from .canonical import Digest, hex_bytes

#: Words that stand for a digest: 64 bits, more than anybody finds a second request for while a page is open.
COUNT: Final = 8

WORDS: Final = tuple(
    """
acid acorn adobe alarm amber anchor angle apron aspen atlas attic autumn badge baker bamboo banjo barrel basil
beacon bench berry bicycle blanket blossom boat bonus bottle boulder bronze brush bucket buffalo bundle butter cabin
cactus camel canyon castle cedar cello chalk chimney cinema circle citrus clay clock cobalt coffee copper cotton
coyote cradle cricket crown crystal cushion cymbal daisy dance delta denim desert diamond diesel dinner doctor
dolphin domino donkey dragon drum duck earth echo eclipse elbow elder emerald engine equator evening exhibit fabric
falcon farmer feather fennel fiddle figure fjord flute forest fossil galaxy garden gazelle geyser glacier glove
goblet gorilla granite guitar harbor helmet hickory hill horse hotel iceberg igloo impala index iris island ivory
jaguar jasmine jigsaw journal juniper kayak kiosk kitten knight koala ladder lagoon lantern lemon leopard lizard
lobster lunar lyric magnet maple meadow mercury mesa mirror mocha moon mosaic mustard napkin nectar needle nickel
nugget nutmeg nylon oboe ocean octopus onion opal orange orbit orchid osprey oxygen palace panda parrot peanut
pebble pencil petal piano picnic pigeon pillow poem polar potato prairie pumpkin puzzle pyramid quail quiver rabbit
radio raft railway raven recipe reef ribbon ring ruby saffron sardine scarf school seagull sesame sierra silver
siren skate sled smoke snow sofa spice sponge stable summer sunset swan syrup teapot temple tennis thistle thunder
tiger torch trophy trumpet tulip tundra turtle tuxedo twig ukulele unicorn vacuum valley vanilla vessel village
vinegar violin volcano voyage vulture waffle walnut weaver weekend wheat whisper window wolf yacht yard yeast yogurt
zebra zenith zodiac
""".split()
)


def words_of(digest: Digest) -> str:
    """The first COUNT bytes of a digest as words, with spaces between them."""
    return " ".join(WORDS[byte] for byte in hex_bytes(digest, 32)[:COUNT])
