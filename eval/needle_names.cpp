#include "eval/needle_names.h"

#include <iterator>
#include <stdexcept>

namespace tandem {
namespace {

constexpr std::string_view kAdjectives[] = {
    "able",     "agile",    "airy",     "alert",    "amber",    "ample",    "ancient", "arid",
    "autumn",   "azure",    "balmy",    "bare",     "bashful",  "basic",    "blank",   "blithe",
    "blond",    "blunt",    "bold",     "bony",     "brave",    "brief",    "bright",  "brisk",
    "broad",    "bronze",   "bubbly",   "busy",     "calm",     "candid",   "careful", "casual",
    "cheery",   "chilly",   "civil",    "classic",  "clean",    "clear",    "clever",  "cloudy",
    "coarse",   "cobalt",   "common",   "cool",     "copper",   "coral",    "cosmic",  "cosy",
    "crafty",   "creamy",   "crimson",  "crisp",    "curly",    "curved",   "daily",   "damp",
    "daring",   "dark",     "dear",     "deep",     "deft",     "dense",    "dim",     "distant",
    "dizzy",    "double",   "downy",    "dry",      "dull",     "dusty",    "eager",   "early",
    "earnest",  "easy",     "ebony",    "elder",    "elegant",  "empty",    "equal",   "even",
    "exact",    "faded",    "faint",    "fair",     "false",    "famous",   "fancy",   "fast",
    "fertile",  "festive",  "fierce",   "final",    "fine",     "firm",     "flat",    "floral",
    "fluffy",   "fond",     "formal",   "fragile",  "frank",    "free",     "fresh",   "frosty",
    "frozen",   "full",     "funny",    "fuzzy",    "gentle",   "giant",    "gifted",  "glad",
    "glassy",   "gleaming", "global",   "glossy",   "golden",   "graceful", "grand",   "grateful",
    "gray",     "great",    "green",    "handy",    "happy",    "hardy",    "harsh",   "hasty",
    "hazy",     "heavy",    "helpful",  "hidden",   "hollow",   "honest",   "humble",  "hungry",
    "icy",      "ideal",    "idle",     "indigo",   "inner",    "ivory",    "jolly",   "jovial",
    "keen",     "kind",     "large",    "late",     "lavish",   "lazy",     "lean",    "level",
    "light",    "linen",    "lively",   "local",    "lofty",    "lonely",   "long",    "loud",
    "loyal",    "lucid",    "lucky",    "lunar",    "magic",    "major",    "maroon",  "mellow",
    "merry",    "mighty",   "mild",     "minor",    "misty",    "modern",   "modest",  "moody",
    "mossy",    "muddy",    "narrow",   "native",   "neat",     "nimble",   "noble",   "noisy",
    "northern", "novel",    "oaken",    "odd",      "olive",    "open",     "orange",  "ornate",
    "oval",     "pale",     "patient",  "peaceful", "pearly",   "perfect",  "plain",   "playful",
    "pleasant", "plucky",   "plump",    "polite",   "precise",  "pretty",   "prime",   "proud",
    "pure",     "purple",   "quaint",   "quick",    "quiet",    "rapid",    "rare",    "ready",
    "regal",    "rich",     "rigid",    "ripe",     "robust",   "rocky",    "rosy",    "rough",
    "round",    "royal",    "ruby",     "rural",    "rustic",   "rusty",    "sandy",   "scarlet",
    "secret",   "serene",   "shady",    "sharp",    "shiny",    "short",    "shy",     "silent",
    "silky",    "silver",   "simple",   "sincere",  "sleepy",   "slender",  "slim",    "slow",
    "smart",    "smooth",   "snowy",    "sober",    "soft",     "solar",    "solid",   "sonic",
    "southern", "spare",    "spicy",    "spiral",   "splendid", "spotless", "square",  "stable",
    "steady",   "steep",    "sterling", "stormy",   "stout",    "strict",   "strong",  "sturdy",
    "subtle",   "sudden",   "sunny",    "superb",   "sweet",    "swift",    "tall",    "tame",
    "tangy",    "tender",   "tepid",    "thick",    "thin",     "thrifty",  "tidy",    "timely",
    "tiny",     "tranquil", "trim",     "true",     "trusty",   "unique",   "upper",   "urban",
    "useful",   "vague",    "valiant",  "vast",     "velvet",   "verdant",  "vivid",   "vocal",
    "warm",     "wary",     "watery",   "wavy",     "weary",    "western",  "wild",    "willing",
    "windy",    "wintry",   "wise",     "witty",    "wooden",   "woolly",   "worthy",  "young",
    "zealous",  "zesty"};

constexpr std::string_view kNouns[] = {
    "acorn",    "adder",   "airship",   "album",    "alcove",   "almond",   "anchor",  "antler",
    "anvil",    "apple",   "apricot",   "apron",    "arbor",    "arch",     "archer",  "armor",
    "arrow",    "atlas",   "attic",     "autumn",   "axle",     "badge",    "bagel",   "bakery",
    "balcony",  "ballad",  "balloon",   "bamboo",   "banjo",    "banner",   "barley",  "barn",
    "barrel",   "basin",   "basket",    "bazaar",   "beacon",   "beaver",   "beetle",  "belfry",
    "bellow",   "bench",   "berry",     "bicycle",  "birch",    "biscuit",  "blanket", "blossom",
    "bobbin",   "bonfire", "bonnet",    "bottle",   "boulder",  "bramble",  "breeze",  "brick",
    "bridge",   "brook",   "broom",     "bucket",   "buckle",   "bugle",    "burrow",  "button",
    "cabin",    "cactus",  "cakes",     "camel",    "candle",   "canoe",    "canvas",  "canyon",
    "captain",  "caravan", "carpet",    "cart",     "castle",   "cave",     "cedar",   "cellar",
    "cement",   "chalk",   "chapel",    "charm",    "cherry",   "chestnut", "chimney", "cider",
    "cinder",   "circus",  "citadel",   "clay",     "cliff",    "clock",    "cloud",   "clover",
    "coach",    "cobbler", "comet",     "compass",  "copper",   "corner",   "cottage", "cotton",
    "coyote",   "cradle",  "crane",     "crater",   "crayon",   "cricket",  "crocus",  "crown",
    "crystal",  "cushion", "cypress",   "dagger",   "dahlia",   "daisy",    "dancer",  "delta",
    "desert",   "diamond", "dolphin",   "donkey",   "doorway",  "dragon",   "drum",    "duchess",
    "dune",     "eagle",   "easel",     "echo",     "elbow",    "elm",      "ember",   "emerald",
    "engine",   "estuary", "fable",     "falcon",   "farmer",   "feather",  "fern",    "ferry",
    "fiddle",   "field",   "finch",     "fjord",    "flagon",   "flame",    "flask",   "flute",
    "forest",   "forge",   "fossil",    "fountain", "foxglove", "garden",   "garland", "garnet",
    "gate",     "gazelle", "geyser",    "ginger",   "glacier",  "glade",    "glove",   "goblet",
    "gondola",  "gorge",   "granite",   "grape",    "grove",    "guitar",   "gull",    "hamlet",
    "hammer",   "hammock", "harbor",    "harp",     "harvest",  "hawk",     "hazel",   "heather",
    "hedge",    "helmet",  "hermit",    "heron",    "hill",     "hinge",    "hive",    "horizon",
    "hornet",   "hut",     "iceberg",   "icicle",   "iris",     "island",   "ivy",     "jacket",
    "jaguar",   "jasmine", "jigsaw",    "juniper",  "kayak",    "kernel",   "kettle",  "kite",
    "kiwi",     "ladder",  "ladle",     "lagoon",   "lake",     "lantern",  "larch",   "lark",
    "lattice",  "laurel",  "lavender",  "lemon",    "lever",    "lily",     "lizard",  "llama",
    "locket",   "locust",  "lotus",     "lute",     "lynx",     "magnet",   "magpie",  "mallet",
    "mango",    "manor",   "mantle",    "maple",    "marble",   "market",   "marsh",   "meadow",
    "melon",    "mill",    "minnow",    "mirror",   "mitten",   "monsoon",  "moose",   "morning",
    "mosaic",   "moss",    "moth",      "mulberry", "museum",   "mustard",  "napkin",  "nectar",
    "needle",   "nest",    "nettle",    "nickel",   "nutmeg",   "oak",      "oasis",   "oatmeal",
    "ocean",    "olive",   "onion",     "opal",     "orchard",  "orchid",   "organ",   "osprey",
    "otter",    "oven",    "oyster",    "packet",   "paddle",   "palace",   "panda",   "panther",
    "paper",    "parade",  "parcel",    "parrot",   "parsley",  "pasture",  "peach",   "peacock",
    "pebble",   "pelican", "pencil",    "penguin",  "pepper",   "petal",    "piano",   "pickle",
    "pigeon",   "pillow",  "pine",      "pirate",   "planet",   "plateau",  "plaza",   "plum",
    "pocket",   "pond",    "poplar",    "poppy",    "portal",   "potter",   "prairie", "puddle",
    "puffin",   "pulley",  "pumpkin",   "puzzle",   "quail",    "quarry",   "quill",   "quilt",
    "rabbit",   "radish",  "rafter",    "raft",     "ranger",   "raven",    "ribbon",  "ridge",
    "river",    "robin",   "rocket",    "rooster",  "rope",     "rudder",   "saddle",  "saffron",
    "sailor",   "salmon",  "sandal",    "sapling",  "satchel",  "saucer",   "sawmill", "scarf",
    "school",   "seal",    "shell",     "shepherd", "shore",    "sickle",   "sieve",   "signal",
    "siren",    "skylark", "sleigh",    "slipper",  "snail",    "sparrow",  "spindle", "spruce",
    "squirrel", "stable",  "staple",    "station",  "steeple",  "stirrup",  "stork",   "stream",
    "summit",   "sunset",  "swallow",   "swan",     "tailor",   "talon",    "tavern",  "teapot",
    "temple",   "terrace", "thicket",   "thimble",  "thistle",  "thunder",  "timber",  "toffee",
    "torch",    "tower",   "trail",     "treasure", "trellis",  "trumpet",  "tulip",   "tundra",
    "tunnel",   "turnip",  "turtle",    "valley",   "vault",    "velvet",   "vessel",  "village",
    "vineyard", "violin",  "volcano",   "voyage",   "waffle",   "wagon",    "walnut",  "walrus",
    "waltz",    "warbler", "waterfall", "weasel",   "wharf",    "whistle",  "widget",  "willow",
    "windmill", "window",  "winter",    "wizard",   "wolf",     "yarrow",   "zebra",   "zephyr"};

constexpr std::string_view kFirst[] = {
    "Aaron",  "Ada",    "Adam",   "Agnes",  "Alan",   "Albert", "Alice",   "Amara",  "Amir",
    "Andre",  "Anita",  "Anna",   "Arjun",  "Arthur", "Astrid", "Aya",     "Ben",    "Bianca",
    "Boris",  "Bruno",  "Carla",  "Carlos", "Cecil",  "Celia",  "Chen",    "Clara",  "Colin",
    "Cora",   "Cyrus",  "Dalia",  "Daniel", "Daria",  "David",  "Dev",     "Diana",  "Dmitri",
    "Dora",   "Edgar",  "Edith",  "Elena",  "Elias",  "Elif",   "Ella",    "Emil",   "Emma",
    "Erik",   "Esther", "Eva",    "Felix",  "Fatima", "Fiona",  "Flora",   "Frank",  "Freya",
    "George", "Gina",   "Grace",  "Greta",  "Hana",   "Hans",   "Harriet", "Hassan", "Hector",
    "Helen",  "Henry",  "Hugo",   "Ida",    "Igor",   "Ines",   "Irene",   "Isaac",  "Ivan",
    "Ivy",    "Jack",   "Jana",   "Jasper", "Joel",   "Jonas",  "Joyce",   "Julia",  "Kai",
    "Karim",  "Karl",   "Kate",   "Keiko",  "Lars",   "Laura",  "Leah",    "Leo",    "Lena",
    "Lin",    "Lionel", "Lola",   "Louis",  "Lucia",  "Lydia",  "Maeve",   "Marco",  "Maria",
    "Martin", "Maya",   "Mei",    "Milan",  "Mina",   "Miriam", "Nadia",   "Nils",   "Nina",
    "Noah",   "Nora",   "Olga",   "Omar",   "Oscar",  "Otto",   "Paul",    "Petra",  "Philip",
    "Priya",  "Quinn",  "Rafael", "Rania",  "Ravi",   "Rita",   "Robert",  "Rosa",   "Ruth",
    "Samir",  "Sara",   "Selma",  "Simon",  "Sofia",  "Stella", "Sven",    "Tara",   "Theo",
    "Tomas",  "Uma",    "Vera",   "Victor", "Viola",  "Walter", "Wanda",   "Wei",    "Yara",
    "Yusuf",  "Zara",   "Zoe"};

constexpr std::string_view kLast[] = {
    "Abbott",  "Adler",    "Ahmed",   "Alvarez",  "Amato",   "Andersen", "Arnold",  "Ashby",
    "Bailey",  "Banerjee", "Barros",  "Becker",   "Bell",    "Benson",   "Berger",  "Bishop",
    "Blake",   "Borg",     "Bowen",   "Brandt",   "Brennan", "Brooks",   "Bryant",  "Burke",
    "Byrne",   "Calder",   "Campos",  "Carter",   "Castro",  "Chan",     "Chopra",  "Clarke",
    "Conti",   "Cooper",   "Costa",   "Cox",      "Cruz",    "Dalton",   "Danso",   "Davies",
    "Dawson",  "Delgado",  "Dixon",   "Doyle",    "Drake",   "Duarte",   "Duval",   "Eaton",
    "Edwards", "Eklund",   "Ellis",   "Esposito", "Evans",   "Farrell",  "Fischer", "Fleming",
    "Flores",  "Fontaine", "Forster", "Foster",   "Fraser",  "Fuentes",  "Garcia",  "Gibson",
    "Gomez",   "Gordon",   "Graham",  "Grant",    "Greene",  "Gupta",    "Haas",    "Hale",
    "Hansen",  "Harper",   "Hayes",   "Herrera",  "Hoffman", "Holt",     "Horvat",  "Howard",
    "Hughes",  "Ibrahim",  "Ito",     "Jensen",   "Johnson", "Jones",    "Kapoor",  "Kaya",
    "Keller",  "Kelly",    "Khan",    "Kim",      "Klein",   "Koch",     "Kovacs",  "Kumar",
    "Lambert", "Larsen",   "Lawson",  "Lee",      "Lehmann", "Lopez",    "Lund",    "Madsen",
    "Malik",   "Marino",   "Marsh",   "Mason",    "Mehta",   "Mendes",   "Meyer",   "Miller",
    "Mills",   "Moreau",   "Moreno",  "Morgan",   "Morris",  "Moser",    "Murphy",  "Nakamura",
    "Nash",    "Nguyen",   "Nolan",   "Novak",    "Nunes",   "Okafor",   "Olsen",   "Ortiz",
    "Osman",   "Palmer",   "Park",    "Parker",   "Patel",   "Pereira",  "Perez",   "Perry",
    "Peters",  "Pham",     "Porter",  "Price",    "Quist",   "Ramos",    "Reid",    "Reyes",
    "Rios",    "Rivera",   "Roberts", "Romano",   "Rossi",   "Rowe",     "Russo",   "Ryan",
    "Sanders", "Santos",   "Sato",    "Schmidt",  "Scott",   "Shah",     "Silva",   "Singh",
    "Soto",    "Stone",    "Suzuki",  "Tanaka",   "Taylor",  "Torres",   "Tran",    "Turner",
    "Vargas",  "Vega",     "Vogel",   "Wagner",   "Walker",  "Wallace",  "Ward",    "Watson",
    "Weber",   "Webb",     "West",    "White",    "Wolfe",   "Wong",     "Wright",  "Yamada",
    "Yilmaz",  "Young",    "Zhang",   "Ziegler",  "Zimmer"};

constexpr int64_t kPlain = std::size(kFirst) * std::size(kLast);
constexpr int64_t kInitials = 26;

}  // namespace

std::span<const std::string_view> needle_adjectives() { return kAdjectives; }
std::span<const std::string_view> needle_nouns() { return kNouns; }

int64_t plain_person_names() { return kPlain; }
int64_t person_names() { return kPlain * (1 + kInitials); }

std::string person_name(int64_t i) {
  if (i < 0 || i >= person_names()) throw std::out_of_range("person_name");
  const int64_t plain = i % kPlain, initial = i / kPlain;  // 0: none
  std::string name(kFirst[plain / std::ssize(kLast)]);
  if (initial > 0) name += std::string(" ") + static_cast<char>('A' + initial - 1) + ".";
  return name + " " + std::string(kLast[plain % std::ssize(kLast)]);
}

}  // namespace tandem
