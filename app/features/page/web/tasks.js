// The tabs of tasks that one form is enough for: what is asked, and how the answer is drawn.

import {
  drawEntities, drawLabels, drawRerank, drawSimilarity, drawVectors,
} from "./drawings.js";
import { addTask } from "./panel.js";

const string = (title, more = {}) => ({ type: "string", title, ...more });
const texts = (title) => ({ type: "array", items: { type: "string" }, title });
const body = (properties, example) => ({
  type: "object", properties, required: Object.keys(properties), examples: [example],
});

// `task` is as GET /models calls it.
export const TASKS = [
  { id: "entities", tab: "Entities", title: "Find entities in a text",
    task: "token-classification", path: "/ner", action: "Find", draw: drawEntities,
    schema: body({ text: string("Text", { widget: "text" }) }, {
      text: "Marie Curie moved from Warsaw to Paris, where she taught physics at the Sorbonne."
        + " Albert Einstein met her in Geneva.",
    }) },
  { id: "rerank", tab: "Rerank", title: "Rank texts by how well they answer a query",
    task: "text-ranking", path: "/rerank", action: "Rank", draw: drawRerank,
    schema: body({ query: string("Query", { widget: "wide" }), documents: texts("Texts") }, {
      query: "Which planet is known as the red one?",
      documents: [
        "Venus is often called Earth's twin because of its similar size.",
        "Mars looks red because of iron oxide on its surface.",
        "Jupiter is the largest planet of the solar system.",
      ],
    }) },
  { id: "zero-shot", tab: "Zero-shot", title: "Choose among labels of your own",
    task: "zero-shot-classification", path: "/zero-shot", action: "Label", draw: drawLabels,
    schema: body({
      text: string("Text", { widget: "text" }), labels: texts("Labels"),
      multi_label: { type: "boolean", title: "several may be right", default: false },
    }, {
      text: "The screen of my new phone stays black.", labels: ["hardware", "billing", "praise"],
    }) },
  { id: "similarity", tab: "Similarity", title: "Compare texts with one",
    task: "embedding", path: "/similarity", action: "Compare", draw: drawSimilarity,
    schema: body({ source: string("Text", { widget: "wide" }), texts: texts("Compare with") }, {
      source: "A cat sat on the mat.",
      texts: ["Interest rates rose.", "A kitten lies on a rug.", "The dog is in the garden."],
    }) },
  { id: "image", tab: "Images", title: "Classify an image",
    task: "image-classification", path: "/classify-image", action: "Classify", draw: drawLabels,
    extra: { top_k: 5 }, schema: body({ image: string("Image", { widget: "image" }) }) },
  { id: "image-vectors", tab: "Image vectors", title: "Turn images into vectors",
    task: "image-embedding", path: "/embed-image", action: "Embed", draw: drawVectors,
    schema: body({ images: { ...texts("Images"), widget: "images" } }) },
];

export const startTasks = () => TASKS.forEach(addTask);
