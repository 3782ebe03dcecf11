//! What is printed of images: `ls`, `inspect`, `history`.

use anyhow::bail;
use hoist::runtime::image::{Image, Reference, Store};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::find;
use crate::cli::exit::Exit;
use crate::cli::render::text::{ago, ellipsis, human_size};
use crate::cli::render::{out, template};

/// List images
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub(crate) struct Ls {
    /// Only this repository, or repository:tag
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
    /// Accepted for Docker's sake: there are no intermediate images here
    #[arg(long, short)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// `reference=PATTERN`, `dangling=true`, `label=KEY[=VALUE]`, `before=IMAGE`, `since=IMAGE`, `until=TIME`
    #[arg(long, short, value_name = "FILTER")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(long, short)]
    quiet: bool,
}

impl Ls {
    pub(crate) fn run(self, store: &Store) -> anyhow::Result<String> {
        let filters = Filters::parse(&self.filter)?;
        let wanted = self.repository.as_deref().map(pattern).transpose()?;
        let now = Timestamp::now();
        let mut rows = Vec::new();
        for image in store.list()? {
            if !filters.match_image(&image, store) {
                continue;
            }
            let id = if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() };
            for (repository, tag, digest) in names(&image, self.digests) {
                if let Some((name, wanted_tag)) = &wanted
                    && (*name != repository || wanted_tag.as_ref().is_some_and(|wanted| *wanted != tag))
                {
                    continue;
                }
                if !filters.match_name(&repository, &tag) {
                    continue;
                }
                rows.push(json!({
                    "Containers": "N/A",
                    "CreatedAt": image.created.map_or_else(|| "N/A".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
                    "CreatedSince": image.created.map_or_else(|| "N/A".to_owned(), |at| ago(at, now)),
                    "Digest": digest,
                    "ID": id,
                    "Platform": image.platform.to_string(),
                    "Repository": repository,
                    "SharedSize": "N/A",
                    "Size": human_size(image.size),
                    "Tag": tag,
                    "UniqueSize": "N/A",
                    "VirtualSize": human_size(image.size),
                }));
            }
        }
        if self.quiet {
            let mut seen = Vec::new();
            for row in &rows {
                let id = row["ID"].as_str().unwrap_or_default().to_owned();
                if !seen.contains(&id) {
                    seen.push(id);
                }
            }
            return Ok(seen.iter().flat_map(|id| [id.as_str(), "\n"]).collect());
        }
        let mut titles = vec![("Repository", "REPOSITORY"), ("Tag", "TAG")];
        if self.digests {
            titles.push(("Digest", "DIGEST"));
        }
        titles.extend([("ID", "IMAGE ID"), ("CreatedSince", "CREATED"), ("Size", "SIZE")]);
        template::list(&self.format, &titles, &rows)
    }
}

/// (repository, tag, digest) of each line an image gets in a list.
fn names(image: &Image, digests: bool) -> Vec<(String, String, String)> {
    let none = || "<none>".to_owned();
    let digest_of = |repository: &str| {
        image.digests.iter().find_map(|text| {
            let (name, digest) = text.split_once('@')?;
            (name == repository).then(|| digest.to_owned())
        })
    };
    let mut lines: Vec<_> = image
        .tags
        .iter()
        .filter_map(|tag| tag.parse::<Reference>().ok())
        .map(|reference| {
            let repository = reference.familiar_name();
            let digest = digest_of(&repository).unwrap_or_else(none);
            (repository, reference.tag().unwrap_or("<none>").to_owned(), digest)
        })
        .collect();
    for text in &image.digests {
        // A repository of which only the digest is known.
        if let Some((name, digest)) = text.split_once('@')
            && !lines.iter().any(|(repository, ..)| repository == name)
        {
            let digest = if digests { digest.to_owned() } else { none() };
            lines.push((name.to_owned(), none(), digest));
        }
    }
    if lines.is_empty() {
        lines.push((none(), none(), none()));
    }
    lines
}

/// A repository argument: (familiar name, tag).
fn pattern(text: &str) -> anyhow::Result<(String, Option<String>)> {
    let reference: Reference = text.parse()?;
    let tagged = text.rsplit('/').next().is_some_and(|last| last.contains(':'));
    Ok((reference.familiar_name(), tagged.then(|| reference.tag().unwrap_or_default().to_owned())))
}

/// `--filter`.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    dangling: Option<bool>,
    labels: Vec<(String, Option<String>, bool)>,
    references: Vec<globset::GlobMatcher>,
    before: Vec<String>,
    since: Vec<String>,
    until: Option<Timestamp>,
}

impl Filters {
    /// Parses `KEY=VALUE` and `label!=VALUE`.
    pub(crate) fn parse(filters: &[String]) -> anyhow::Result<Self> {
        let mut parsed = Self::default();
        for filter in filters {
            let Some((key, value)) = filter.split_once('=') else {
                bail!("invalid filter `{filter}`: expected NAME=VALUE");
            };
            match key {
                "dangling" => {
                    parsed.dangling = Some(crate::cli::args::go_bool(value).map_err(anyhow::Error::msg)?);
                }
                "label" | "label!" => {
                    let (name, wanted) = match value.split_once('=') {
                        Some((name, wanted)) => (name, Some(wanted.to_owned())),
                        None => (value, None),
                    };
                    parsed.labels.push((name.to_owned(), wanted, key == "label"));
                }
                "reference" => parsed.references.push(
                    globset::GlobBuilder::new(value).literal_separator(true).build()?.compile_matcher(),
                ),
                "before" => parsed.before.push(value.to_owned()),
                "since" => parsed.since.push(value.to_owned()),
                "until" => parsed.until = Some(moment(value)?),
                _ => bail!(
                    "invalid filter `{key}`: there are dangling, label, reference, before, since and until"
                ),
            }
        }
        Ok(parsed)
    }

    /// Whether the image passes.
    pub(crate) fn match_image(&self, image: &Image, store: &Store) -> bool {
        let created =
            |name: &String| store.resolve(name, None).ok().flatten().and_then(|other| other.created);
        self.dangling.is_none_or(|dangling| dangling == (image.tags.is_empty() && image.digests.is_empty()))
            && self.match_parts(&image.config.config.labels, image.created)
            && self.before.iter().all(|name| image.created < created(name))
            && self.since.iter().all(|name| image.created > created(name))
    }

    /// Whether something that is no image passes what is said of labels and times.
    pub(crate) fn match_parts(
        &self,
        labels: &std::collections::BTreeMap<String, String>,
        created: Option<Timestamp>,
    ) -> bool {
        self.labels.iter().all(|(name, wanted, present)| {
            let found = labels.get(name);
            found.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value)) == *present
        }) && self.until.is_none_or(|until| created.is_none_or(|at| at < until))
    }

    /// Whether there is a limit in time.
    pub(crate) const fn has_until(&self) -> bool {
        self.until.is_some()
    }

    fn match_name(&self, repository: &str, tag: &str) -> bool {
        self.references.is_empty()
            || self
                .references
                .iter()
                .any(|glob| glob.is_match(repository) || glob.is_match(format!("{repository}:{tag}")))
    }
}

/// A point in time, or a duration ago (`24h`).
fn moment(text: &str) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(Timestamp::from_second(seconds)?);
    }
    match text.parse::<jiff::SignedDuration>() {
        Ok(ago) => Ok(Timestamp::now().checked_sub(ago)?),
        Err(_) => {
            bail!("invalid time `{text}`: expected a date, seconds since 1970, or a duration such as 24h")
        }
    }
}

/// Shows everything about images; those that are not there are named at the end.
pub(crate) fn inspect(
    store: &Store,
    names: &[String],
    format: Option<&str>,
    platform: Option<&str>,
) -> anyhow::Result<Exit> {
    let (mut objects, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match find(store, name, platform) {
            Ok(image) => objects.push(describe(&image)?),
            Err(error) => missing.push(error),
        }
    }
    out::print(&template::inspect(format, &objects)?)?;
    for error in &missing {
        out::talk(&format!("error: {error:#}\n"));
    }
    Ok(if missing.is_empty() { Exit::Success } else { Exit::Failure })
}

/// What `docker image inspect` shows.
fn describe(image: &Image) -> anyhow::Result<Value> {
    let config = &image.config;
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let paths: Vec<String> = image.layers.iter().map(|path| path.display().to_string()).collect();
    let mut object = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Parent": "",
        "Comment": config.comment,
        "Created": config.created.map(|at| at.to_string()),
        "DockerVersion": "",
        "Author": config.author,
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.size,
        "GraphDriver": { "Data": { "LowerDir": paths.join(":") }, "Name": "overlay" },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": image.tagged.map(|at| at.to_string()) },
        "Config": serde_json::to_value(&config.config)?,
    });
    if !image.platform.variant.is_empty() {
        object["Variant"] = json!(image.platform.variant);
    }
    // Docker shows these always, `null` or empty.
    for (key, empty) in [
        ("Cmd", Value::Null),
        ("Entrypoint", Value::Null),
        ("Env", Value::Null),
        ("Labels", Value::Null),
        ("OnBuild", Value::Null),
        ("User", json!("")),
        ("Volumes", Value::Null),
        ("WorkingDir", json!("")),
    ] {
        if object["Config"].get(key).is_none() {
            object["Config"][key] = empty;
        }
    }
    Ok(object)
}

/// Show how an image was made
#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Name or id
    image: String,
    /// table, json, or a template
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Sizes and dates for people; --human=false for programs
    #[arg(long, short = 'H', default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::cli::args::go_bool)]
    human: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(long, short)]
    quiet: bool,
    /// Look at this platform's image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl HistoryArgs {
    pub(crate) fn run(self, store: &Store) -> anyhow::Result<String> {
        let image = find(store, &self.image, self.platform.as_deref())?;
        let sizes = store.layer_sizes(&image.id)?;
        let now = Timestamp::now();
        let mut rows = Vec::new();
        let mut layers = sizes.into_iter();
        for step in &image.config.history {
            let size = if step.empty_layer { 0 } else { layers.next().unwrap_or(0) };
            let by = step.created_by.replace('\t', " ");
            rows.push(json!({
                "Comment": step.comment,
                "CreatedAt": step.created.map_or_else(|| "N/A".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
                "CreatedBy": if self.no_trunc { by } else { ellipsis(&by, 45) },
                "CreatedSince": match step.created {
                    None => "N/A".to_owned(),
                    Some(at) if self.human => ago(at, now),
                    Some(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                },
                "ID": "<missing>",
                "Size": if self.human { human_size(size) } else { size.to_string() },
            }));
        }
        rows.reverse();
        if let Some(top) = rows.first_mut() {
            top["ID"] = json!(if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() });
        }
        if self.quiet {
            return Ok(rows.iter().flat_map(|row| [row["ID"].as_str().unwrap_or_default(), "\n"]).collect());
        }
        let titles = [
            ("ID", "IMAGE"),
            ("CreatedSince", "CREATED"),
            ("CreatedBy", "CREATED BY"),
            ("Size", "SIZE"),
            ("Comment", "COMMENT"),
        ];
        template::list(&self.format, &titles, &rows)
    }
}
