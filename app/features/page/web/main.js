// Puts the page together.

import { keepKey } from "./api.js";
import { startChat } from "./chat.js";
import { startClassify } from "./classify.js";
import { startMany } from "./many.js";
import { startModels } from "./models.js";
import { startPython } from "./python.js";
import { startRoutes } from "./routes.js";
import { startSearch } from "./search.js";
import { startStatus } from "./status.js";
import { startTabs } from "./tabs.js";
import { startTasks } from "./tasks.js";

keepKey();
startClassify();
startMany();
startChat();
startTasks();
const readDocument = startPython();
startRoutes(startTabs({ search: startSearch(), status: startStatus() }), readDocument);
startModels();
