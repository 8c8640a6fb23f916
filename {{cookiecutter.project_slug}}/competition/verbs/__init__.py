"""One verb a function, by the stage it belongs to; verbs import what they need when they run."""
