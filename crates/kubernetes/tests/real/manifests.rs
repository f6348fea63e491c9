//! The manifests of examples/kubernetes.

use std::fs;

use crate::{scene::Scene, support::NAMESPACE};

const FILES: [&str; 2] = ["server.yaml", "gateway.yaml"];

fn documents(file: &str) -> Vec<String> {
    let path = format!("{}/../../examples/kubernetes/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("it is there");
    text.split("\n---\n").map(str::to_owned).collect()
}

#[tokio::test]
#[ignore = "needs kubernetes: cargo xtask test kubernetes"]
async fn manifests_are_accepted_by_the_server() {
    let scene = Scene::new().await;
    let mut kinds = Vec::new();
    for document in FILES.iter().flat_map(|file| documents(file)) {
        let accepted = scene.api.validate(NAMESPACE, &document).await;
        let accepted = accepted.unwrap_or_else(|error| panic!("{error}\n{document}"));
        kinds.push(accepted["kind"].as_str().expect("an object").to_owned());
        // A validation that accepts everything would prove nothing.
        let misspelt = document.replace("metadata:", "metadate:");
        scene.api.validate(NAMESPACE, &misspelt).await.expect_err("an unknown field");
    }
    let wanted = ["Deployment", "Service", "ServiceAccount", "Role", "RoleBinding", "Deployment"];
    assert_eq!(kinds, wanted);
}
