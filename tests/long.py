"""Which tests are long: `make test` leaves them out, `make test-long` runs them, and plain pytest runs all.

Long is what takes seconds by its nature: whole studies of the bundled pair, the whole protocol of the paper, sweeps of
kills and faults, a browser, all architectures. Each thing that they test has a short test beside them.
"""

import pytest

FIXTURES = {
    "test_check.py": ("whole",),
    "test_demo.py": ("demo",),
    "test_diffusion_study.py": ("studies",),
    "test_docs.py": ("shown",),
    "test_pair.py": ("studies",),
    "test_paper.py": ("paper",),
    "test_viewer.py": ("large_viewer",),
    "test_viewer_in_browser.py": ("large_viewer", "hostile"),
    "test_whole_answers.py": ("long",),
}
"""By file, fixtures that take long to make: a test that asks for one of them is long."""

TESTS = (
    "test_commands.py::test_a_fault_of_the_disk_is_one_line[compare",
    "test_commands.py::test_a_kill_leaves_the_old_or_the_new[compare]",
    "test_commands.py::test_a_kill_leaves_the_old_or_the_new[save a study]",
    "test_crash.py::test_a_replaced_recording_is_the_old_one_or_the_new_one",
    "test_last_line.py::test_few_open_files_are_enough_or_one_line",
    "test_whole_jobs.py",
    "test_architectures.py::test_an_architecture_is_followed_exactly_or_refused_as_the_docs_say[mamba]",
    "test_architectures.py::test_an_architecture_is_followed_exactly_or_refused_as_the_docs_say[rwkv]",
    "test_benchmarks.py::test_the_defense_benchmark_times_every_way_on_the_same_prompts",
    "test_benchmarks.py::test_the_gpu_benchmark_writes_speeds_memory_and_overheads_of_both_families",
    "test_bundled.py::test_an_answer_names_what_was_asked_for[tiny-diffusion]",
    "test_bundled.py::test_harmless_requests_are_answered_and_harmful_ones_refused[tiny-diffusion]",
    "test_bundled.py::test_some_jailbreaks_work_and_some_do_not[tiny-diffusion]",
    "test_bundled.py::test_the_diffusion_model_also_runs_in_autoregressive_order",
    "test_chat.py::test_a_template_that_runs_away_is_not_run[{% for a",
    "test_check_cli.py::test_uniform_diffusion_is_checked_in_batches_and_says_what_is_not_run",
    "test_check_rows.py::test_a_process_that_cannot_begin_fails_with_its_last_words",
    "test_checked_study.py::test_a_check_that_was_left_out_is_kept_as_such",
    "test_cli.py::test_a_study_leaves_a_report_that_opens_offline",
    "test_cli.py::test_the_installed_command_exits_with_2_and_one_line",
    "test_cli.py::test_the_parts_make_a_guard_that_scores",
    "test_cli_output.py::test_a_plugin_brings_attacks_and_samplers",
    "test_compaction.py::test_a_kill_at_any_moment_of_joining_loses_and_doubles_nothing",
    "test_compare.py::test_the_page_opens_offline_and_holds_every_number_and_no_text",
    "test_compare.py::test_the_paired_interval_leaves_out_zero_exactly_where_the_exact_test_does[90",
    "test_controls.py::test_controls_that_do_not_fit_the_context",
    "test_docs.py::test_readme_prints_what_its_code_prints",
    "test_docs_shell.py::test_the_commands_of_a_page_run",
    "test_every_family.py::test_every_row_of_the_check_is_green",
    "test_every_family.py::test_a_recording_in_batches_that_is_broken_off",
    "test_every_family.py::test_recordings_have_anchors_a_guard_a_viewer",
    "test_execution.py::test_every_block_that_states_are_read_behind_is_compiled",
    "test_execution.py::test_states_and_text_are_the_same_and_the_choice_is_in_the_provenance[{'compile'",
    "test_fewer.py::test_a_study_of_many_prompts_fits_to_some_and_scores_all",
    "test_front_door.py::test_study_and_compare_do_what_the_commands_do",
    "test_guard.py::test_the_default_training_reconstructs_harmless_signals_in_seconds",
    "test_harden.py::test_long_prompts_are_in_the_first_round_only_where_a_limit_is_given",
    "test_hostile.py::",
    "test_overheads.py::test_seconds_of_another_make_or_machine_are_measured_again_all_of_them[batch]",
    "test_overheads.py::test_seconds_of_another_make_or_machine_are_measured_again_all_of_them[host]",
    "test_overheads.py::test_seconds_of_another_make_or_machine_are_measured_again_all_of_them[torn]",
    "test_parts.py::test_a_merge_that_is_killed_anywhere_goes_on",
    "test_parts.py::test_the_commands_record_parts_and_merge_them",
    "test_recording.py::test_a_full_disk_keeps_what_was_recorded",
    "test_recording.py::test_a_killed_recording_goes_on_and_ends_as_if_never_killed",
    "test_recording.py::test_memory_does_not_grow_with_the_number_of_prompts",
    "test_recording.py::test_sampling_at_a_temperature_does_not_depend_on_the_batch",
    "test_recording.py::test_streamed_anchors_equal_those_fitted_from_recordings",
    "test_repair.py::test_a_batch_gives_what_its_rows_give_alone[block]",
    "test_report.py::test_figures_of_many_attacks_show_a_stated_sample",
    "test_report.py::test_figures_of_the_study_are_saved_as_png_and_svg_and_the_same_twice",
    "test_report.py::test_prompts_and_answers_are_in_the_file_only_when_asked_for",
    "test_serve.py::test_mode_score_watches_and_stops_nothing[demur/tiny-diffusion]",
    "test_serve.py::test_requests_at_once_end_as_the_recording_says_plain_and_streamed[demur/tiny-diffusion]",
    "test_serve.py::test_the_step_and_the_score_are_those_of_the_recording[demur/tiny-diffusion]",
    "test_serve.py::test_what_is_held_back_never_reaches_the_wire[all-demur/tiny-diffusion]",
    "test_serve.py::test_what_is_held_back_never_reaches_the_wire[look-demur/tiny-diffusion]",
    "test_serve.py::test_what_is_held_back_never_reaches_the_wire[none-demur/tiny-diffusion]",
    "test_serve_clients.py::test_a_killed_server_leaves_whole_lines_that_replay_on_the_recording",
    "test_serve_clients.py::test_no_request_within_or_outside_of_the_description_is_an_error_of_the_server",
    "test_serve_engines.py::test_looks_of_whole_answers_are_judged_as_on_the_recording[continuous]",
    "test_sharing.py::test_guards_are_pushed_to_a_hub_and_pulled_from_it",
    "test_skips.py::test_a_run_fails_only_under_ci_and_only_for_an_unlisted_reason[no Chromium",
    "test_skips.py::test_a_run_fails_only_under_ci_and_only_for_an_unlisted_reason[no time--0]",
    "test_staging.py::test_a_kill_leaves_the_old_files_or_the_new_ones",
    "test_stopping.py::test_guards_of_several_threads_stop_what_each_stops_alone",
    "test_stopping.py::test_stops_and_tokens_are_those_of_the_guard_on_a_recording[1-",
    "test_stopping.py::test_stops_and_tokens_are_those_of_the_guard_on_a_recording[7-llada]",
    "test_study_tables.py::test_every_page_of_a_study_that_lacks_all_tables_can_be_written",
    "test_threads.py::test_two_hundred_requests_of_eight_threads_give_what_each_gives_alone",
    "test_viewer_in_browser.py::test_every_control_is_reached",
    "test_viewer_in_browser.py::test_filters_narrow_the_list",
    "test_viewer_in_browser.py::test_generation_step_and_shown_text",
    "test_viewer_in_browser.py::test_prompts_are_listed_and_searched",
    "test_viewer_in_browser.py::test_the_chart_and_the_position",
    "test_viewer_in_browser.py::test_the_grid_shows_the_state_and_token_of_every_position_at_every_step",
    "test_viewer_in_browser.py::test_the_guards_error_stands",
    "test_viewer_in_browser.py::test_the_keyboard_moves",
    "test_viewer_in_browser.py::test_the_picture_of_all_steps",
)
"""Beginnings of "file::test[parameters]": every test that begins so is long."""


def is_long(item: pytest.Item) -> bool:
    """Whether a collected test is one of them."""
    file = item.path.name
    asked = getattr(item, "fixturenames", ())
    return f"{file}::{item.name}".startswith(TESTS) or any(name in asked for name in FIXTURES.get(file, ()))
