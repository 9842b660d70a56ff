//! Operations on repositories.

use archweld_local_api::ApiError;
use archweld_model::RepositoryName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, RepositoryTarget, check_batch, epoch_seconds, invalid_parameter, page::PageInput,
};
use crate::{Registry, RegistryError, TagMutability, state::Repository};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mutability {
    image_tag_mutability: Option<Mode>,
    image_tag_mutability_exclusion_filters: Option<Vec<Filter>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Mode {
    Mutable,
    Immutable,
    ImmutableWithExclusion,
    MutableWithExclusion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(rename = "filterType")]
    _filter_type: FilterType,
    filter: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum FilterType {
    Wildcard,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DescribeRepositories {
    registry_id: Option<String>,
    repository_names: Option<Vec<RepositoryName>>,
}

#[derive(Deserialize)]
pub(super) struct DeleteRepository {
    force: Option<bool>,
}

impl Registry {
    pub(super) async fn call_create_repository(
        &self,
        target: RepositoryTarget,
        mutability: Mutability,
    ) -> Answer {
        self.check_registry(&target)?;
        self.create_repository(&target.repository_name, mutability.parse()?).await?;
        let name = &target.repository_name;
        let created = self.with_repository(&target, |it| self.repository_value(name, it))?;
        Ok(json!({"repository": created}))
    }

    pub(super) fn describe_repositories(
        &self,
        input: DescribeRepositories,
        page: PageInput,
    ) -> Answer {
        let state = self.inner.state();
        let own = input.registry_id.is_none_or(|id| id == self.inner.host.account());
        let (repositories, next) = match input.repository_names {
            Some(names) => {
                check_batch("repositoryNames", &names)?;
                if !page.is_empty() {
                    return Err(invalid_parameter("repositoryNames", "no maxResults or nextToken"));
                }
                let described = names.iter().map(|name| {
                    let repository = state.repositories.get(name).filter(|_| own);
                    let repository = repository
                        .ok_or_else(|| RegistryError::RepositoryNotFound(name.clone()))?;
                    Ok(self.repository_value(name, repository))
                });
                (described.collect::<Result<Vec<_>, RegistryError>>()?, None)
            }
            None => {
                let all = state.repositories.iter().filter(|_| own);
                let (page, next) = page.of(all, |(name, _)| name.to_string(), 100, 1000)?;
                (page.into_iter().map(|(name, it)| self.repository_value(name, it)).collect(), next)
            }
        };
        Ok(json!({"repositories": repositories, "nextToken": next}))
    }

    pub(super) async fn call_delete_repository(
        &self,
        target: RepositoryTarget,
        input: DeleteRepository,
    ) -> Answer {
        let name = &target.repository_name;
        let deleted = self.with_repository(&target, |it| self.repository_value(name, it))?;
        self.delete_repository(name, input.force.unwrap_or(false)).await?;
        Ok(json!({"repository": deleted}))
    }

    pub(super) async fn put_image_tag_mutability(
        &self,
        target: RepositoryTarget,
        mutability: Mutability,
    ) -> Answer {
        self.check_registry(&target)?;
        if mutability.image_tag_mutability.is_none() {
            return Err(invalid_parameter("imageTagMutability", "a value"));
        }
        let mutability = mutability.parse()?;
        self.set_tag_mutability(&target.repository_name, mutability.clone()).await?;
        Ok(json!({
            "registryId": self.inner.host.account(),
            "repositoryName": target.repository_name,
            "imageTagMutability": mutability.as_str(),
            "imageTagMutabilityExclusionFilters": filters_value(&mutability),
        }))
    }

    fn repository_value(&self, name: &RepositoryName, repository: &Repository) -> Value {
        json!({
            "repositoryArn": self.inner.host.arn("ecr", &format!("repository/{name}")),
            "registryId": self.inner.host.account(),
            "repositoryName": name,
            "repositoryUri": format!("{}/{name}", self.address()),
            "createdAt": epoch_seconds(repository.created_at),
            "imageTagMutability": repository.mutability.as_str(),
            "imageTagMutabilityExclusionFilters": filters_value(&repository.mutability),
            "imageScanningConfiguration": {"scanOnPush": false},
            "encryptionConfiguration": {"encryptionType": "AES256"},
        })
    }
}

impl Mutability {
    fn parse(self) -> Result<TagMutability, ApiError> {
        const FILTERS: &str = "imageTagMutabilityExclusionFilters";
        let filters = self.image_tag_mutability_exclusion_filters.unwrap_or_default();
        let filters: Vec<String> = filters.into_iter().map(|filter| filter.filter).collect();
        let valid = |c: char| c.is_ascii_alphanumeric() || "._*-".contains(c);
        let fits = |filter: &String| (1..=128).contains(&filter.len()) && filter.chars().all(valid);
        if !filters.iter().all(fits) {
            return Err(invalid_parameter(FILTERS, "filters of 1 to 128 of `0-9 a-z A-Z . _ * -`"));
        }
        match (self.image_tag_mutability.unwrap_or(Mode::Mutable), filters.len()) {
            (Mode::Mutable, 0) => Ok(TagMutability::Mutable),
            (Mode::Immutable, 0) => Ok(TagMutability::Immutable),
            (Mode::ImmutableWithExclusion, 1..=5) => {
                Ok(TagMutability::ImmutableWithExclusion(filters))
            }
            (Mode::MutableWithExclusion, 1..=5) => Ok(TagMutability::MutableWithExclusion(filters)),
            (Mode::Mutable | Mode::Immutable, _) => {
                Err(invalid_parameter(FILTERS, "none without a mode with exclusion"))
            }
            _ => Err(invalid_parameter(FILTERS, "1 to 5 filters for a mode with exclusion")),
        }
    }
}

fn filters_value(mutability: &TagMutability) -> Option<Value> {
    let filters = mutability.filters().iter();
    let filters: Vec<Value> =
        filters.map(|filter| json!({"filterType": "WILDCARD", "filter": filter})).collect();
    (!filters.is_empty()).then(|| json!(filters))
}
