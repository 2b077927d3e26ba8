"""From what the cluster says to what it should say. Level-triggered: an event only marks what to look at again."""
