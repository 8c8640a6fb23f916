"""The command line: one verb a stage, in the order one uses them; verbs import what they need when they run."""
