use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Shorter than [`POLL`], so that only a notice can be the reason of a report.
const SOON: Duration = Duration::from_secs(8);
/// Long enough for a notice to arrive and be settled.
const QUIET: Duration = Duration::from_millis(200);

/// A directory with a configuration file, and a watcher of it.
struct Scene {
    directory: TempDir,
    watcher: Watcher,
}

impl Scene {
    /// A plain file.
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("cutover.yaml"), "one").unwrap();
        Self::watching(directory)
    }

    /// A file as Kubernetes mounts it.
    fn kubernetes() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        fs::create_dir(path.join("..2026_1")).unwrap();
        fs::write(path.join("..2026_1/cutover.yaml"), "one").unwrap();
        symlink("..2026_1", path.join("..data")).unwrap();
        symlink("..data/cutover.yaml", path.join("cutover.yaml")).unwrap();
        Self::watching(directory)
    }

    fn watching(directory: TempDir) -> Self {
        let watcher = Watcher::new(vec![directory.path().join("cutover.yaml")]);
        Self { directory, watcher }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Puts a new directory behind `..data` as Kubernetes does, and removes the old one.
    fn swap_data(&self, old: &str, new: &str, content: &str) {
        fs::create_dir(self.path(new)).unwrap();
        self.write(&format!("{new}/cutover.yaml"), content);
        symlink(new, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
        fs::remove_dir_all(self.path(old)).unwrap();
    }

    /// Waits for one report.
    async fn reports(&mut self) {
        let change = timeout(SOON, self.watcher.changed()).await;
        change.expect("the change is reported");
    }

    /// Nothing is reported.
    async fn stays_quiet(&mut self) {
        let change = timeout(QUIET, self.watcher.changed()).await;
        assert!(change.is_err(), "there is nothing to report");
    }
}

#[tokio::test]
async fn a_file_written_in_place_is_reported_once() {
    let mut scene = Scene::new();
    scene.write("cutover.yaml", "two");
    scene.reports().await;
    scene.stays_quiet().await;
    scene.write("cutover.yaml", "three");
    scene.reports().await;
}

#[tokio::test]
async fn an_editors_rename_is_reported_every_time() {
    let mut scene = Scene::new();
    for content in ["two", "three", "four"] {
        scene.write(".cutover.yaml.swp", content);
        fs::rename(scene.path(".cutover.yaml.swp"), scene.path("cutover.yaml")).unwrap();
        scene.reports().await;
    }
    scene.stays_quiet().await;
}

#[tokio::test]
async fn an_editor_that_moves_the_old_file_away_first_causes_one_report() {
    let mut scene = Scene::new();
    fs::rename(scene.path("cutover.yaml"), scene.path("cutover.yaml~")).unwrap();
    scene.write("cutover.yaml", "two");
    scene.reports().await;
    scene.stays_quiet().await;
}

#[tokio::test]
async fn every_swap_of_a_kubernetes_volume_is_reported() {
    let mut scene = Scene::kubernetes();
    scene.swap_data("..2026_1", "..2026_2", "two");
    scene.reports().await;
    scene.swap_data("..2026_2", "..2026_3", "three");
    scene.reports().await;
    scene.swap_data("..2026_3", "..2026_4", "three");
    scene.stays_quiet().await;
    scene.write("..2026_4/cutover.yaml", "four");
    scene.reports().await;
}

#[tokio::test]
async fn a_link_that_comes_to_point_elsewhere_is_followed_there() {
    let elsewhere = TempDir::new().unwrap();
    fs::write(elsewhere.path().join("other.yaml"), "two").unwrap();
    let mut scene = Scene::new();
    symlink(elsewhere.path().join("other.yaml"), scene.path("link")).unwrap();
    fs::rename(scene.path("link"), scene.path("cutover.yaml")).unwrap();
    scene.reports().await;
    fs::write(elsewhere.path().join("other.yaml"), "three").unwrap();
    scene.reports().await;
}

#[tokio::test]
async fn half_a_file_is_not_reported_while_its_writer_is_at_work() {
    let mut scene = Scene::new();
    let file = scene.path("cutover.yaml");
    let mut writer = File::create(&file).unwrap();
    writer.write_all(b"half ").unwrap();
    let early = timeout(Duration::from_millis(60), scene.watcher.changed()).await;
    assert!(early.is_err(), "half a file is no change");
    writer.write_all(b"and half").unwrap();
    drop(writer);
    let written = Instant::now();
    scene.reports().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "half and half");
    assert!(
        written.elapsed() < WRITER_PATIENCE,
        "the closing is what was waited for"
    );
    scene.stays_quiet().await;
}

#[tokio::test]
async fn a_writer_that_never_closes_is_believed_when_it_has_rested() {
    let mut scene = Scene::new();
    let begun = Instant::now();
    let mut writer = File::create(scene.path("cutover.yaml")).unwrap();
    writer.write_all(b"two").unwrap();
    scene.reports().await;
    assert!(begun.elapsed() >= WRITER_PATIENCE);
    // And it does not hold up what others complete.
    let second = scene.path("second");
    fs::write(&second, "three").unwrap();
    let completed = Instant::now();
    fs::rename(second, scene.path("cutover.yaml")).unwrap();
    scene.reports().await;
    assert!(completed.elapsed() < WRITER_PATIENCE);
}

#[tokio::test]
async fn a_change_survives_the_dropping_of_the_future_that_waits_for_it() {
    let mut scene = Scene::new();
    scene.write("cutover.yaml", "two");
    let deadline = Instant::now() + SOON;
    // As in a loop that has other things to do every few milliseconds.
    while timeout(Duration::from_millis(1), scene.watcher.changed())
        .await
        .is_err()
    {
        assert!(Instant::now() < deadline, "the change is reported");
    }
    scene.stays_quiet().await;
}

#[tokio::test]
async fn a_change_made_while_nobody_waits_is_reported() {
    let mut scene = Scene::new();
    scene.stays_quiet().await;
    scene.write("cutover.yaml", "two");
    tokio::task::yield_now().await;
    scene.reports().await;
}

#[tokio::test]
async fn a_deleted_file_is_a_change_and_so_is_its_return() {
    let mut scene = Scene::new();
    fs::remove_file(scene.path("cutover.yaml")).unwrap();
    scene.reports().await;
    scene.write("cutover.yaml", "one");
    scene.reports().await;
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_recreated_is_watched_again() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("config");
    let file = directory.join("cutover.yaml");
    fs::create_dir(&directory).unwrap();
    fs::write(&file, "one").unwrap();
    let mut watcher = Watcher::new(vec![file.clone()]);
    fs::remove_dir_all(&directory).unwrap();
    timeout(SOON, watcher.changed()).await.expect("it is gone");
    fs::create_dir(&directory).unwrap();
    fs::write(&file, "two").unwrap();
    timeout(SOON, watcher.changed()).await.expect("it is back");
    fs::write(&file, "three").unwrap();
    timeout(SOON, watcher.changed())
        .await
        .expect("its new directory is watched");
}

#[tokio::test]
async fn a_directory_that_is_replaced_by_renaming_is_watched_again() {
    let parent = TempDir::new().unwrap();
    let [directory, old, new] = ["config", "old", "new"].map(|name| parent.path().join(name));
    for (directory, content) in [(&directory, "one"), (&new, "two")] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("cutover.yaml"), content).unwrap();
    }
    let mut watcher = Watcher::new(vec![directory.join("cutover.yaml")]);
    fs::rename(&directory, &old).unwrap();
    fs::rename(&new, &directory).unwrap();
    timeout(SOON, watcher.changed())
        .await
        .expect("the new one is seen");
    fs::write(directory.join("cutover.yaml"), "three").unwrap();
    timeout(SOON, watcher.changed())
        .await
        .expect("the new one is watched");
}

#[tokio::test]
async fn a_touch_and_a_neighbour_are_no_changes() {
    let mut scene = Scene::new();
    scene.write("cutover.yaml", "one");
    File::open(scene.path("cutover.yaml"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    scene.write("neighbour.yaml", "new");
    scene.stays_quiet().await;
}

#[tokio::test]
async fn a_second_file_is_watched_from_the_reload_that_names_it() {
    let elsewhere = TempDir::new().unwrap();
    let pins = elsewhere.path().join("pins.txt");
    fs::write(&pins, "alice").unwrap();
    let mut scene = Scene::new();
    let file = scene.path("cutover.yaml");
    scene.watcher.watch(vec![file.clone(), pins.clone()]);
    scene.stays_quiet().await;
    fs::write(&pins, "bob").unwrap();
    scene.reports().await;
    scene.watcher.watch(vec![file]);
    fs::write(&pins, "carol").unwrap();
    scene.stays_quiet().await;
}

#[tokio::test]
async fn a_change_between_the_reading_and_the_naming_of_more_files_is_not_missed() {
    let mut scene = Scene::new();
    scene.write("pins.txt", "alice");
    scene.write("cutover.yaml", "two");
    scene.reports().await;
    // The reader has read "two"; before it says which files that names, there is "three".
    scene.write("cutover.yaml", "three");
    let files = vec![scene.path("cutover.yaml"), scene.path("pins.txt")];
    scene.watcher.watch(files);
    scene.reports().await;
    scene.stays_quiet().await;
}

#[tokio::test]
async fn without_notices_changes_are_found_by_looking() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("cutover.yaml");
    let mut watcher = Watcher::with_system(vec![file.clone()], Arc::default(), None);
    fs::write(&file, "one").unwrap();
    timeout(SOON, watcher.changed())
        .await
        .expect("the change is found");
}

#[tokio::test]
async fn what_cannot_be_read_as_a_file_is_neither_followed_for_ever_nor_waited_for() {
    let directory = TempDir::new().unwrap();
    let [circle, folder] = ["circle", "folder"].map(|name| directory.path().join(name));
    symlink("circle", &circle).unwrap();
    fs::create_dir(&folder).unwrap();
    let mut watcher = Watcher::new(vec![circle.clone(), folder]);
    fs::remove_file(&circle).unwrap();
    fs::write(&circle, "straight").unwrap();
    timeout(SOON, watcher.changed())
        .await
        .expect("the circle is broken");
}
