"""From a labelled file to a trained model: data -> encoders -> ridge | lora | static -> model (the folder on disk).

Read in that order; `normalisers` and `embedding` stand beside `encoders`. `ridge_run`, `lora_run` and `static_run` do a
whole run each, `run_summary` says what it did, `verbs` sits on top. A comparison goes candidate -> candidate_features,
candidate_records -> candidate_training -> comparison -> comparison_files; a sweep search_space -> sweep_plan ->
sweep_study -> sweep -> sweep_choice -> sweep_files. May import the runtime (`edgewren`), never export: the two meet at
the trained model's folder.
"""
