use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower_sd_core::{ErrorKind, Pem};

use super::*;

const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: dev
contexts:
- name: dev
  context: { cluster: here, user: by-token, namespace: shop }
- name: certificate
  context: { cluster: here, user: by-certificate }
- name: plugin
  context: { cluster: there, user: by-plugin }
- name: old
  context: { cluster: here, user: by-provider }
- name: password
  context: { cluster: here, user: by-password }
- name: dangling
  context: { cluster: nowhere, user: by-token }
- name: file
  context: { cluster: here, user: by-file }
clusters:
- name: here
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority: pki/ca.crt
    tls-server-name: kubernetes
- name: there
  cluster:
    server: https://[fd00::1]:6443/k8s/c-1
    certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t
users:
- name: by-token
  user: { token: "hunter2" }
- name: by-certificate
  user: { client-certificate: pki/me.crt, client-key: /abs/me.key }
- name: by-plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: aws
      args: [eks, get-token, --cluster-name, 12]
      env: [{ name: AWS_PROFILE, value: hunter2 }]
      interactiveMode: IfAvailable
      provideClusterInfo: true
- name: by-file
  user: { tokenFile: tokens/me }
- name: by-provider
  user: { auth-provider: { name: gcp, config: { access-token: hunter2 } } }
- name: by-password
  user: { username: me, password: hunter2 }
"#;

fn files(texts: &[&str]) -> (TempDir, Vec<PathBuf>) {
    let folder = TempDir::new().expect("a folder");
    let paths = texts.iter().enumerate().map(|(index, text)| {
        let file = folder.path().join(format!("{index}.yaml"));
        fs::write(&file, text).expect("our folder");
        file
    });
    let paths = paths.collect();
    (folder, paths)
}

fn of(context: Option<&str>) -> (TempDir, Result<KubernetesConfig>) {
    let (folder, files) = files(&[KUBECONFIG]);
    let config = KubernetesConfig::of_files(&files, context);
    (folder, config)
}

#[test]
fn current_context_names_server_and_namespace_and_token() {
    let (folder, config) = of(None);
    let config = config.expect("a context");
    assert_eq!(
        (config.server.as_str(), config.namespace.as_str()),
        ("https://10.0.0.1:6443", "shop")
    );
    assert_eq!(config.token, Some(Secret::new("hunter2")));
    let tls =
        TlsConfig::new().with_root(folder.path().join("pki/ca.crt")).with_server_name("kubernetes");
    assert_eq!(config.tls, Some(tls));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn scheme_of_the_server_is_read_without_case() {
    let (folder, files) = files(&[&KUBECONFIG.replace("https://10", "HTTPS://10")]);
    let config = KubernetesConfig::of_files(&files, None).expect("a context");
    let tls =
        TlsConfig::new().with_root(folder.path().join("pki/ca.crt")).with_server_name("kubernetes");
    assert_eq!(config.tls, Some(tls));
}

#[test]
fn client_certificate_is_relative_to_its_file() {
    let (folder, config) = of(Some("certificate"));
    let config = config.expect("a context");
    let pki = folder.path().join("pki");
    let tls = TlsConfig::new()
        .with_root(pki.join("ca.crt"))
        .with_server_name("kubernetes")
        .with_identity(pki.join("me.crt"), PathBuf::from("/abs/me.key"));
    assert_eq!((config.tls, config.namespace.as_str()), (Some(tls), "default"));
}

#[test]
fn token_file_is_relative_to_its_file() {
    let (folder, config) = of(Some("file"));
    let config = config.expect("a context");
    assert_eq!(config.token_file, Some(folder.path().join("tokens/me")));
}

#[test]
fn exec_plugin_gets_arguments_and_variables_and_the_cluster() {
    let (_folder, config) = of(Some("plugin"));
    let config = config.expect("a context");
    assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    let plugin = config.exec.expect("a plugin");
    assert_eq!(plugin.command, PathBuf::from("aws"));
    assert_eq!(plugin.args, ["eks", "get-token", "--cluster-name", "12"]);
    assert_eq!(plugin.env.get("AWS_PROFILE").map(String::as_str), Some("hunter2"));
    assert!(plugin.cluster_info.expect("requested").contains("https://[fd00::1]:6443/k8s/c-1"));
}

#[test]
fn plugin_gets_an_authority_of_a_file_and_its_own_settings() {
    let text = KUBECONFIG.replace("cluster: there", "cluster: here").replace(
        "    tls-server-name: kubernetes\n",
        "    extensions:\n    - name: client.authentication.k8s.io/exec\n      extension: { audience: me }\n",
    );
    let (folder, files) = files(&[&text]);
    fs::create_dir(folder.path().join("pki")).expect("our folder");
    fs::write(folder.path().join("pki/ca.crt"), "a certificate").expect("our folder");
    let config = KubernetesConfig::of_files(&files, Some("plugin")).expect("a context");
    let info = config.exec.and_then(|plugin| plugin.cluster_info).expect("requested");
    let info: Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(info["certificate-authority-data"], STANDARD.encode("a certificate"));
    assert_eq!(info["config"], json!({ "audience": "me" }));
}

#[test]
fn empty_texts_are_not_given() {
    let empty = r#"
current-context: ""
clusters:
- name: here
  cluster:
    server: https://h
    proxy-url: ""
    tls-server-name: ""
    certificate-authority: /ca
    certificate-authority-data: ""
users:
- name: by-token
  user: { token: hunter2, username: "", as: "", client-certificate: "", client-key: "" }
"#;
    let (_folder, files) = files(&[empty, KUBECONFIG]);
    let config = KubernetesConfig::of_files(&files, None).expect("the second one has a context");
    assert_eq!((config.server.as_str(), config.namespace.as_str()), ("https://h", "shop"));
    assert_eq!(config.token, Some(Secret::new("hunter2")));
    assert_eq!(config.tls, Some(TlsConfig::new().with_root("/ca")));
}

#[test]
fn authority_in_a_block_has_line_breaks() {
    let data = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    let block = format!("|\n      {}\n      {}", &data[..16], &data[16..]);
    let (_folder, files) = files(&[&KUBECONFIG.replace(data, &block)]);
    let config = KubernetesConfig::of_files(&files, Some("plugin")).expect("a context");
    let pem = Pem::Text("-----BEGIN CERTIFICATE-----".into());
    assert_eq!(config.tls, Some(TlsConfig::new().with_root(pem)));
}

#[test]
fn refusals_name_the_remedy_and_no_secret() {
    for (context, part) in [
        ("old", "auth-provider \"gcp\""),
        ("password", "use a token"),
        ("dangling", "no cluster \"nowhere\""),
        ("missing", "no context \"missing\""),
    ] {
        let (_folder, config) = of(Some(context));
        let error = config.expect_err(context);
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = format!("{error:?}");
        assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
    }
}

#[test]
fn first_of_several_files_wins_and_missing_ones_are_left_out() {
    let first = "current-context: mine\ncontexts:\n- name: mine\n  context: {cluster: here}\n";
    let (folder, mut paths) = files(&[first, KUBECONFIG]);
    paths.insert(0, folder.path().join("missing"));
    let config = KubernetesConfig::of_files(&paths, None).expect("two files");
    assert_eq!((config.server.as_str(), &config.token), ("https://10.0.0.1:6443", &None));
    let error = KubernetesConfig::of_files(&paths[..1], None).expect_err("the only file");
    assert!(error.to_string().contains("cannot read"), "{error}");
}

#[test]
fn pod_has_variables_and_files() {
    let (folder, _) = files(&[]);
    fs::write(folder.path().join("namespace"), "shop\n").expect("our folder");
    let variable = |name| match name {
        "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
        "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
        _ => None,
    };
    let config = KubernetesConfig::of_pod(variable, folder.path()).expect("a pod");
    assert_eq!(
        (config.server.as_str(), config.namespace.as_str()),
        ("https://[fd00::1]:6443", "shop")
    );
    assert_eq!(config.token_file, Some(folder.path().join("token")));
    assert_eq!(config.tls, Some(TlsConfig::new().with_root(folder.path().join("ca.crt"))));
    let error = KubernetesConfig::of_pod(|_| None, folder.path()).expect_err("no pod");
    assert!(error.to_string().contains("runs in no pod"), "{error}");
}

#[test]
fn url_sets_what_it_names() {
    let url = "kubernetes://shop?server=https://10.0.0.1:6443&token-file=/t&ca-file=/ca&zone=a\
               &family=ipv6-first";
    let config = KubernetesConfig::from_url(url).expect("a URL");
    assert_eq!(
        (config.server.as_str(), config.namespace.as_str()),
        ("https://10.0.0.1:6443", "shop")
    );
    assert_eq!((config.token_file, config.zone), (Some("/t".into()), Some("a".into())));
    assert_eq!(config.family, Family::Ipv6First);
    assert_eq!(config.tls, Some(TlsConfig::new().with_root("/ca")));
    let (_folder, files) = files(&[KUBECONFIG]);
    let url = format!("kubernetes://?kubeconfig={}&context=plugin", files[0].display());
    assert!(KubernetesConfig::from_url(&url).expect("a context").exec.is_some());
    let with_token_file = KubernetesConfig::from_url(&format!("{url}&token-file=/t"));
    let with_token_file = with_token_file.expect("a context");
    assert!(with_token_file.exec.is_none(), "the option wins");
    for option in ["server-name=api", "tls=true", "verify=false", "ca-file=/ca"] {
        let error = KubernetesConfig::from_url(&format!("{url}&{option}")).expect_err(option);
        assert!(error.to_string().contains("has its own"), "{error}");
    }
    for (rest, part) in [
        ("shop:1", "has no port"),
        ("shop,pay", "one namespace"),
        ("shop/orders", "no path"),
        ("Shop?server=http://h", "namespace"),
        ("shop?server=http://h&context=x", "names the server already"),
        ("shop?server=http://h&tls=true&token-file=/t", "has http"),
        ("shop?server=http://h&ca-file=/ca", "has http"),
        ("shop?server=h:1", "not a URL"),
        ("shop?server=http://h&token=hunter2", "a secret in a URL"),
        ("shop?colour=red", "unknown option \"colour\""),
        ("shop?family=ipv5", "ipv6-first"),
    ] {
        let error = KubernetesConfig::from_url(&format!("kubernetes://{rest}")).expect_err(rest);
        assert!(error.to_string().contains(part), "{rest}: {error}");
    }
}
