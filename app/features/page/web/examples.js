// Texts for those who have none at hand. One is longer than a passage, to show what is marked.

const BEES = `A colony of honey bees has one queen, some hundreds of drones and, in summer, up to \
sixty thousand workers. The queen lays as many as two thousand eggs a day. A worker's first weeks \
are spent inside: she cleans cells, feeds larvae, builds comb from wax that her own body makes, and \
guards the entrance. Only the old bees fly out, and most of them live no longer than six weeks.

Honey begins as nectar. It is passed from mouth to mouth, thickened by the warm air of the hive and \
closed under wax when less than a fifth of it is water; then it keeps for years. A colony needs \
about twenty kilograms of it to get through a winter, during which the bees sit close together \
around their queen and warm her by trembling.

In May the hive becomes too small. The workers raise new queens, and before the first of them leaves \
her cell the old queen flies off with half of the colony. The swarm hangs in a tree for some hours, \
a dark cluster as large as a melon, while a few hundred scouts look at hollow trees and chimneys. \
They come back, report, and look again at what the others have praised, until all of them agree on \
one place. Then the whole swarm moves there, and builds its first comb on the same day.

Bees tell each other where flowers are by dancing. A forager that has found a good field runs along \
a straight line on the dark comb, wagging her body, turns, and runs again. The angle between her \
line and the vertical is the angle between the sun and the field; how long she wags is how far one \
has to fly. The others follow her closely, feel each movement with their antennae, and leave. When \
two dancers praise different places, each follower chooses one, and within an hour most of the \
colony works where the nectar is best.`;

const SEA = "The sea covers most of the planet. Tides rise and fall because the moon and the sun " +
  "pull at the water, and twice a day the beach is given back to those who walk on it.";

const BREAD = "Bread needs flour, water, salt and time. A sourdough is raised by wild yeast; the " +
  "slower it ferments, the more flavour it has and the longer the loaf stays fresh.";

const BICYCLE = "A bicycle chain wants to be clean and lightly oiled. When it has stretched by one " +
  "percent it should be replaced, or it will wear the sprockets down.";

export const EXAMPLES = [
  { name: "bees.txt", text: BEES },
  { name: "sea.txt", text: SEA },
  { name: "bread.txt", text: BREAD },
  { name: "bicycle.txt", text: BICYCLE },
];
